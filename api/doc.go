// Package api is the HTTP edge: it turns requests into calls of the store and
// the dispatcher, and what comes back into JSON or problem documents.
//
// openapi.yaml is the source of truth; gen is made from it. A request goes
// through
//
//	request id, caller's address → access log → recover → limits → authentication
//	→ path check → route → authorization → validation against the document
//	→ audit log → handler
//
// Handlers take a context and typed requests. There is one file per resource,
// and v0.go holds the JSON shapes of the old API. All errors that users may see
// are *fleet.Error; problem.go alone knows which status each kind has.
package api
