package commctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

// Exit codes. Scripts depend on them; 'commctl help exit-codes' explains them.
const (
	exitOK          = 0
	exitUnreachable = 1 // no server was reached
	exitUsage       = 2 // wrong command line or configuration; with old verbs every refusal
	exitNotFound    = 3
	exitConflict    = 4
	exitFailed      = 5 // the operation failed
	exitTimeout     = 6 // waited as long as was asked for
	exitForbidden   = 7
	exitUnavailable = 8   // the server, or a part that it needs, is away
	exitUnknown     = 9   // something was begun, or may have been, and how it ended was not seen
	exitInterrupted = 130 // as shells say of SIGINT
)

// exitError is an error that decides the exit code. Every other error is one of
// the command line, and has code 2.
type exitError struct {
	code  int
	err   error
	usage bool // the usage line comes before the message
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// exitf makes an error with an exit code.
func exitf(code int, format string, args ...any) error {
	return &exitError{code: code, err: fmt.Errorf(format, args...)}
}

// report tells what went wrong and gives the exit code.
func (a *App) report(cmd *cobra.Command, err error) int {
	var known *exitError
	var dead *unreachableError
	var child *childError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled): // by a signal; nothing else cancels
		return exitInterrupted
	case errors.As(err, &dead):
		dead.print(a.Err)
		return exitUnreachable
	case errors.As(err, &child):
		return child.code
	case errors.As(err, &known):
		if known.usage {
			a.printUsage(cmd)
		}
		a.printError(known.err)
		return known.code
	}
	a.printUsage(cmd)
	a.printError(err)
	return exitUsage
}

func (a *App) printUsage(cmd *cobra.Command) { fmt.Fprintln(a.Err, "usage:", cmd.UseLine()) }

func (a *App) printError(err error) { fmt.Fprintln(a.Err, "commctl: error:", legible(err.Error())) }

// childError ends commctl with the exit code of a command it ran for the user.
type childError struct{ code int }

func (e *childError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// answerError is an answer that is not 2xx.
type answerError struct {
	status int
	ours   bool // a problem document of Commissaire, not the answer of a proxy before it
	text   string
}

func (e *answerError) Error() string { return e.text }

// refused says whether the server looked at the request and will not do it. Whoever
// sends it again with its key is told otherwise when it was done before.
func (e *answerError) refused() bool {
	return e != nil && e.ours && e.status < 500 && !e.unheard()
}

// unheard says whether the sender was refused before anybody looked at the request.
func (e *answerError) unheard() bool {
	return e != nil && (e.status == http.StatusForbidden || e.status == http.StatusTooManyRequests)
}

// away says whether the server does nothing now, as a part that it needs is away.
func (e *answerError) away() bool {
	return e != nil && e.ours && e.status == http.StatusServiceUnavailable
}

// failure is the error of an answer for new verbs, nil for 2xx.
func failure(status int, body []byte) error {
	code := exitUsage
	switch {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusNotFound:
		code = exitNotFound
	case status == http.StatusConflict || status == http.StatusMethodNotAllowed:
		code = exitConflict
	case status == http.StatusForbidden:
		code = exitForbidden
	case status >= 500 || status == http.StatusTooManyRequests:
		code = exitUnavailable
	}
	p, ok := problem(body)
	ours := ok && strings.HasPrefix(p.Type, "/docs/problems/")
	return &exitError{code: code, err: &answerError{status, ours, explain(status, body)}}
}

// explain says in a line what an answer with an error means: the problem
// document's words, else those of HTTP.
func explain(status int, body []byte) string {
	p, ok := problem(body)
	switch {
	case !ok && plainText(status, body):
		return speaksTLS
	case !ok:
		return fmt.Sprintf("the server answered %d %s", status, http.StatusText(status))
	}
	return strings.Join(problemLines(p), "; ")
}

// speaksTLS is said where an http:// endpoint turns out to speak TLS.
const speaksTLS = "the server speaks TLS there; the endpoint must begin with https://"

// plainText says whether an answer is what servers of TLS say to HTTP without it: those
// of Go "an HTTP request to an HTTPS server", nginx "plain HTTP request was sent to
// HTTPS port".
func plainText(status int, body []byte) bool {
	return status == http.StatusBadRequest && bytes.Contains(body, []byte("HTTP request")) && bytes.Contains(body, []byte("HTTPS"))
}

func problem(body []byte) (client.Problem, bool) {
	var p client.Problem
	err := json.Unmarshal(body, &p)
	return p, err == nil && p.Title != ""
}

// problemLines are the words of a problem document that help a user.
func problemLines(p client.Problem) []string {
	first := p.Detail
	if first == "" {
		first = p.Title
	}
	lines := []string{first}
	for _, e := range p.Errors {
		if !strings.Contains(first, e.Field) {
			lines = append(lines, e.Field+": "+e.Detail)
		}
	}
	if p.Holder != nil && !strings.Contains(first, p.Holder.Operation) {
		lines = append(lines, "operation "+p.Holder.Operation+" is in the way")
	}
	if p.Status >= 500 && p.RequestId != "" {
		lines = append(lines, "request id "+p.RequestId)
	}
	return lines
}

// unreachableError says that no endpoint could be reached.
type unreachableError struct {
	tried []attempt
	out   io.Writer // where the contract wants the list
}

type attempt struct {
	endpoint string
	err      error
	arrived  bool // the request may have
}

func (e *unreachableError) Error() string {
	return "no server could be reached"
}

// why is the error in words. Most servers of TLS answer HTTP without it by an alert,
// which is content type 21 and version 3 (RFC 8446 §5.1) where HTTP should begin.
func (t attempt) why() string {
	if alertedInPlain(t.err) {
		return speaksTLS
	}
	return t.err.Error()
}

func alertedInPlain(err error) bool {
	return strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`)
}

// arrived says whether a server may have read the request.
func (e *unreachableError) arrived() bool {
	return slices.ContainsFunc(e.tried, func(t attempt) bool { return t.arrived })
}

// reasons are the errors of all endpoints on one line.
func (e *unreachableError) reasons() string {
	var all []string
	for _, t := range e.tried {
		all = append(all, t.endpoint+": "+t.why())
	}
	return strings.Join(all, "; ")
}

// Unwrap gives the causes.
func (e *unreachableError) Unwrap() []error {
	var all []error
	for _, t := range e.tried {
		all = append(all, t.err)
	}
	return all
}

// print writes the list that old clients know, and the reasons to errs.
func (e *unreachableError) print(errs io.Writer) {
	fmt.Fprintln(e.out, "No servers could be reached. Tried the following:")
	for _, t := range e.tried {
		fmt.Fprintln(e.out, "-", t.endpoint)
	}
	fmt.Fprintln(e.out, "Exiting...")
	for _, t := range e.tried {
		fmt.Fprintf(errs, "commctl: error: %s: %s\n", t.endpoint, t.why())
	}
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `Exit codes:

  0    done
  1    no server could be reached
  2    wrong command line or configuration, or the server refused the request
  3    what was named does not exist
  4    the request does not fit what is there, such as another running operation
  5    the operation failed, or was cancelled
  6    waited as long as --timeout allows
  7    the credentials were refused, or do not allow this
  8    the server, or a part that it needs, is away; try again
  9    a command or rollout was begun, or may have been, and commctl did not see its
       end; look before you repeat it
  130  interrupted

The verbs that commctl has had since 2016 keep their exit codes when they run
without -o, --dry-run, --wait and --watch: what does not exist is 0 with "No object
found.", every refusal is 2. They are all verbs of cluster (but policy),
container_manager, host (but labels, creds, trust and bootstrap) and network.

'host ssh' with a remote command ends with the exit code of ssh.`,
	}
}
