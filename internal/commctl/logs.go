package commctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

func (a *App) logsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "logs OPERATION [HOST [STEP]]", Short: "Print what the steps of an operation printed on the hosts", Args: operationArgs(cobra.RangeArgs(1, 3)),
		Long: `Print what the steps of an operation printed on the hosts, with host and step before
each line unless both are given. With a step and without -f, what goes into a file or
a pipe is byte for byte what was printed; otherwise control characters are shown as
pictures or U+FFFD.

Of very long output the middle is not kept, which is said where it is missing, or on
standard error when the output is byte for byte.`,
		Example: "  commctl logs " + exampleID + " 192.0.2.10 upgrade\n  commctl logs -f web",
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the operation has ended")
	return a.onOperation(cmd, func(cmd *cobra.Command, c *client.ClientWithResponses, id string, rest []string) error {
		l := a.logsOf(c, id)
		l.host, l.step = optional(rest, 0), optional(rest, 1)
		l.raw = l.step != "" && !follow && !isTerminal(a.Out)
		if !follow {
			return l.print(cmd.Context())
		}
		err := l.follow(cmd.Context(), a)
		if errors.Is(err, context.Canceled) {
			fmt.Fprintf(a.Err, "The operation goes on. To see it: commctl operations watch %s\n", id)
		}
		return err
	})
}

// logs prints the output of steps.
type logs struct {
	client         *client.ClientWithResponses
	id, host, step string // host and step may be ""
	raw            bool   // byte for byte
	bare           bool   // with the host alone before each line
	out, errs      io.Writer
	seen           map[logKey]int64  // up to where the output of a step was printed
	rest           map[logKey][]byte // the last line of it, when it has not ended
	missing        map[logKey]bool   // some of it is not kept
}

// logsOf prints the output of all steps of an operation, for people.
func (a *App) logsOf(c *client.ClientWithResponses, id string) *logs {
	return &logs{client: c, id: id, out: a.Out, errs: a.Err, seen: map[logKey]int64{}, rest: map[logKey][]byte{}, missing: map[logKey]bool{}}
}

// logKey is one attempt of a step on a host.
type logKey struct {
	host, step string
	attempt    int
}

// print prints all that is on record, step after step. With a step that is not
// there it is an error.
func (l *logs) print(ctx context.Context) error {
	steps, err := operationSteps(ctx, l.client, l.id, l.host)
	if err != nil {
		return err
	}
	found := false
	for _, s := range steps {
		if l.step != "" && l.step != s.Name {
			continue
		}
		found = true
		key := logKey{s.Address, s.Name, s.Attempt}
		if s.OutputSize == 0 {
			continue
		}
		if err := l.read(ctx, key); err != nil {
			return err
		}
		if err := l.flush(key); err != nil {
			return err
		}
	}
	if !found && (l.host != "" || l.step != "") {
		return l.noStep()
	}
	return nil
}

func (l *logs) noStep() error {
	return exitf(exitNotFound, "operation %s has no such step; commctl operations steps %s lists all", l.id, l.id)
}

// read prints what a step has printed and was not seen yet.
func (l *logs) read(ctx context.Context, key logKey) error {
	for {
		from := l.seen[key]
		params := &client.GetStepOutputParams{Offset: &from, Limit: pointer(1 << 20), Attempt: &key.attempt}
		r, body, err := exchange(ctx, func(ctx context.Context) (*http.Response, error) {
			return l.client.GetStepOutput(ctx, l.id, key.host, key.step, params)
		})
		if err != nil {
			return err
		}
		offset, err := strconv.ParseInt(r.Header.Get("Output-Offset"), 10, 64)
		if err != nil {
			return unreadable(errors.New("no Output-Offset"))
		}
		if len(body) == 0 {
			return nil
		}
		if err := l.write(key, offset, int64(len(body)), body); err != nil {
			return err
		}
	}
}

// write prints a piece of output that begins at offset and is so many bytes long on
// the host; what was seen before is left out.
func (l *logs) write(key logKey, offset, length int64, text []byte) error {
	seen := l.seen[key]
	switch {
	case offset+length <= seen:
		return nil
	case offset < seen && length == int64(len(text)):
		text = text[seen-offset:]
	case offset > seen:
		if err := l.flush(key); err != nil {
			return err
		}
		if err := l.gap(key, offset-seen); err != nil {
			return err
		}
	}
	l.seen[key] = offset + length
	if l.raw {
		_, err := l.out.Write(text)
		return err
	}
	text = append(l.rest[key], text...)
	end := bytes.LastIndexByte(text, '\n') + 1
	l.rest[key] = bytes.Clone(text[end:])
	if end == 0 {
		return nil
	}
	var b bytes.Buffer
	for line := range bytes.Lines(text[:end]) {
		b.WriteString(l.prefix(key) + legible(string(bytes.TrimRight(line, "\r\n"))) + "\n")
	}
	_, err := l.out.Write(b.Bytes())
	return err
}

// gap says that bytes are missing.
func (l *logs) gap(key logKey, n int64) error {
	l.missing[key] = true
	if l.raw {
		_, err := fmt.Fprintf(l.errs, "commctl: %d bytes are not kept here\n", n)
		return err
	}
	_, err := fmt.Fprintf(l.out, "%s[%d bytes are not kept]\n", l.prefix(key), n)
	return err
}

// flush prints the last line of a step, when it had no end.
func (l *logs) flush(key logKey) error {
	rest := l.rest[key]
	delete(l.rest, key)
	if len(rest) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(l.out, l.prefix(key)+legible(string(rest)))
	return err
}

func (l *logs) flushAll() error {
	for key := range l.rest {
		if err := l.flush(key); err != nil {
			return err
		}
	}
	return nil
}

func (l *logs) prefix(key logKey) string {
	switch {
	case l.bare:
		return key.host + ": "
	case l.step != "":
		return ""
	case l.host != "":
		return key.step + " | "
	}
	return key.host + " " + key.step + " | "
}

// follow prints output as it comes, until the operation has ended. A host that it
// does not have is an error at once, a step that never came one in the end.
func (l *logs) follow(ctx context.Context, a *App) error {
	if l.host != "" {
		hosts, err := operationHosts(ctx, l.client, l.id, "")
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(hosts, func(h client.HostRun) bool { return h.Address == l.host }) {
			return exitf(exitNotFound, "operation %s has no host %s; commctl operations hosts %s lists all", l.id, l.host, l.id)
		}
	}
	quiet, err := a.clientTelling(io.Discard)
	if err != nil {
		return err
	}
	f := &follower{client: quiet, id: l.id, host: l.host, output: true, event: l.event,
		polled: func(ctx context.Context, _ client.Operation) error { return l.catchUp(ctx) },
		notice: func(trouble string) {
			if trouble != "" {
				fmt.Fprintln(a.Err, "commctl:", trouble)
			}
		},
	}
	if err := f.run(ctx); err != nil {
		return err
	}
	if err := l.flushAll(); err != nil {
		return err
	}
	if l.step == "" || len(l.seen) > 0 {
		return nil
	}
	steps, err := operationSteps(ctx, l.client, l.id, l.host)
	if err == nil && !slices.ContainsFunc(steps, func(s client.Step) bool { return s.Name == l.step }) {
		err = l.noStep()
	}
	return err
}

// event prints output, and ends the last line of a step that has ended.
func (l *logs) event(e event) error {
	key := logKey{e.Address, e.Step, e.Attempt}
	switch {
	case l.step != "" && l.step != e.Step:
		return nil
	case e.name == "output" && e.Offset != nil:
		return l.write(key, *e.Offset, int64(e.Length), []byte(e.Text))
	case e.name == "step" && e.State != "running":
		return l.flush(key)
	}
	return nil
}

// catchUp prints what is on record by now. A server that is away for a moment has
// more the next time.
func (l *logs) catchUp(ctx context.Context) error {
	steps, err := operationSteps(ctx, l.client, l.id, l.host)
	for _, s := range steps {
		key := logKey{s.Address, s.Name, s.Attempt}
		if err == nil && (l.step == "" || l.step == s.Name) && l.seen[key] < s.OutputSize {
			err = l.read(ctx, key)
		}
	}
	if err != nil && passing(err) {
		return nil
	}
	return err
}
