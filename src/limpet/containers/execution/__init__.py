"""The plan is carried out: namespaces, root, program; and a second program beside it (`exec`)."""
