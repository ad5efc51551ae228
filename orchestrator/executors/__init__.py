"""What runs a command: few verbs, one contract (`base.Executor`), one test for all of them."""
