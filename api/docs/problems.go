package docs

import "strings"

// problem explains one kind of failure.
type problem struct {
	title string
	text  string
}

var problems = map[string]problem{
	"invalid": {
		"The request is wrong",
		"Something in the request is not as the API document says. The list `errors` names the members and what each must be. Sending the same again cannot help.",
	},
	"forbidden": {
		"Not allowed",
		"Either the request carries no credentials that the server knows, or who asks may not do this: `detail` says which role it takes, and GET /api/v0/whoami says which one you have. Of wrong credentials it does not tell whether the user or the password is wrong. Only an operator can see in the server's log whether an authentication plug-in is broken.",
	},
	"too_many": {
		"Too many wrong credentials",
		"Requests from this address, or for this user, carried wrong credentials too often. Wait for the time in Retry-After, and check what sends them: old passwords in scripts are the usual reason.",
	},
	"not_found": {
		"No such thing",
		"The path or the method does not exist, or what the path names is not there. When `errors` names a part of the path, its value can never be the name of anything.",
	},
	"not_ready": {
		"The host is not ready",
		"A host can join a cluster while its status is active or disassociated. GET the host: `status` and `reason` tell what is in the way. A failed host is bootstrapped again by PUT of its /bootstrap.",
	},
	"conflict": {
		"It does not fit what is stored",
		"The request is right in itself but contradicts what is stored. When `holder` is there, that operation holds the cluster or host: wait for it at its URL, or cancel it by POST of its /cancel (a bootstrap by DELETE of its host), then try again.",
	},
	"too_large": {
		"The body is too large",
		"A request body has at most 1 MiB.",
	},
	"unsupported_encoding": {
		"The body is compressed",
		"Send the body as it is, without Content-Encoding.",
	},
	"internal": {
		"The server is at fault",
		"The server met something that should not happen. Its log tells more under the request id of the document. Please report it.",
	},
	"unavailable": {
		"A part of the server does not answer",
		"The database or the workflow service does not answer now, or too many event streams are open. Try again after the time in Retry-After. Sending the same PUT again is safe, also when the first one did arrive, and so is a POST with an Idempotency-Key. /readyz tells which part it is.",
	},
}

// ProblemURL is the type URL of a kind of failure.
func ProblemURL(kind string) string { return "/docs/problems/" + strings.ReplaceAll(kind, "_", "-") }

// ProblemTitle is the title of a kind of failure.
func ProblemTitle(kind string) string { return problems[kind].title }

// ProblemText is the page behind a type URL; name is the last part of it.
func ProblemText(name string) (text string, ok bool) {
	p, ok := problems[strings.ReplaceAll(name, "-", "_")]
	if !ok {
		return "", false
	}
	return p.title + "\n\n" + p.text + "\n", true
}
