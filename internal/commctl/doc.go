// Package commctl is the command line of Commissaire. cmd/commctl starts it.
//
// # How to add a verb
//
// One file per noun. A verb is a method of App that gives a *cobra.Command with
// Use, Short, Example, Args and RunE; it is added in root (app.go) or to the group
// of its noun (group). It writes answers to a.Out, everything else to a.Err, and
// uses cmd.Context(). Then:
//
//	c, err := a.client()                          // endpoints, credentials, failover
//	op, err := fetch[client.Operation](ctx, func(ctx context.Context) (*http.Response, error) {
//		return c.GetOperation(ctx, id)            // 404, 409 … have their exit codes
//	})
//	return renderOne(a, *format, operationView, op)
//
//	format := outputFlag(cmd, formatTable)        // -o; before RunE is set
//	var operationView = view[client.Operation]{…} // how it looks as table and name
//
// An error with an exit code of its own is exitf(exitTimeout, "…"). Any other error
// means that the command line was wrong: usage line, exit code 2. Text that came
// from hosts or users goes through legible before it reaches a terminal; tables do
// it themselves. What takes long is followed by a follower (follow.go), and shown by
// stay (watch.go).
//
// Verbs that clients of 2017 know use a.old, oldGet, oldList and deleteEach
// (oldverbs.go), which keep their requests, words and exit codes.
//
// After a change run
//
//	go test ./internal/commctl -run 'TestHelp|TestDocs' -update
//
// which writes the help of every command into testdata/help and the table of
// docs/commctl.md, and read the diff.
package commctl
