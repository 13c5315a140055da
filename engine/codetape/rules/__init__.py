"""Pure analysis of prompts, tests, imports and reports. Versioned: a tape replays by the rules it was made with."""
