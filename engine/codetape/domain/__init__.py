"""Plain frozen values: task, plan, code, report, findings, requests, budgets. No behaviour beyond their own fields."""
