package hostos

// Diagnose names the cause of a failed command by the end of what it printed,
// and what to do next, in one sentence; "" when the cause is none of the
// frequent ones.
func Diagnose(output []byte) string { return "" }
