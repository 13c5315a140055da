"""What runs inside a sandbox. These files import the standard library only (and pytest), on any Python from 3.8."""
