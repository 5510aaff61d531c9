package commctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/spf13/cobra"
)

// route makes a path of the API from its parts.
func route(parts ...string) string {
	p := "/api/v0"
	for _, part := range parts {
		p += "/" + url.PathEscape(part)
	}
	return p
}

// oldRequest is a request of an old verb.
type oldRequest struct {
	method, route string
	body          any       // nil for none, or {} with PUT and DELETE
	key           string    // Idempotency-Key, "" for none
	notice        io.Writer // is told about dead endpoints; old clients do so on standard output
}

// do sends one request of an old verb: JSON by name also without a body, and PUT
// and DELETE always with one.
func (a *App) do(ctx context.Context, r oldRequest) (status int, answer []byte, err error) {
	c, err := a.connect()
	if err != nil {
		return 0, nil, err
	}
	body := r.body
	if body == nil && (r.method == http.MethodPut || r.method == http.MethodDelete) {
		body = struct{}{}
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(text)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, r.method, c.base()+r.route, content)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if r.key != "" {
		request.Header.Set("Idempotency-Key", r.key)
	}
	response, err := c.doer(r.notice).Do(request)
	if err != nil {
		return 0, nil, late(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(response.Body)
	if err != nil {
		return 0, nil, late(exitf(exitUnreachable, "the answer broke off: %w", err))
	}
	return response.StatusCode, answer, foreign(response, answer)
}

// foreign is the error of an answer that says that all is well and is something else
// than JSON, such as the page of another web server. Nothing is an answer, too.
func foreign(r *http.Response, answer []byte) error {
	if r.StatusCode < 200 || r.StatusCode > 299 || len(bytes.TrimSpace(answer)) == 0 || json.Valid(answer) {
		return nil
	}
	return exitf(exitUsage, "%s://%s does not answer as Commissaire does; is the endpoint right?", r.Request.URL.Scheme, r.Request.URL.Host)
}

func late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return exitf(exitUnreachable, "the server did not answer within %s", callTime)
	}
	return err
}

// Words of old verbs for answers that hold nothing to print.
const (
	wordSuccess    = "Success"
	wordNoInstance = "No instance"
	wordNotFound   = "No object found."
)

// outcome turns an answer into what an old verb prints. Error: the refusal, with
// exit code 2.
func outcome(method, route string, status int, answer []byte) (any, error) {
	switch {
	case status == http.StatusNoContent:
		return wordNoInstance, nil
	case status == http.StatusNotFound:
		return wordNotFound, nil
	case status < 200 || status > 299:
		return nil, refusal(method, route, status, answer)
	}
	value, err := decode(answer)
	switch {
	case err == nil && !empty(value):
		return value, nil
	case status == http.StatusCreated:
		return []any{"Created " + path.Base(route)}, nil
	}
	return wordSuccess, nil
}

func empty(value any) bool {
	switch v := value.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	case string:
		return v == ""
	}
	return value == nil
}

func refusal(method, route string, status int, answer []byte) error {
	message := fmt.Sprintf("Unable to %s the object at %s: %d", method, route, status)
	if status == http.StatusForbidden {
		message = "The provided credentials were incorrect."
	}
	if plainText(status, answer) {
		message += "\n  " + speaksTLS
	}
	if p, ok := problem(answer); ok {
		message += "\n  " + strings.Join(problemLines(p), "\n  ")
	}
	return &exitError{code: exitUsage, usage: true, err: errors.New(message)}
}

// old runs a request of an old verb and prints its outcome.
func (a *App) old(ctx context.Context, method, route string, body any) error {
	status, answer, err := a.do(ctx, oldRequest{method: method, route: route, body: body, notice: a.Out})
	if err != nil {
		return err
	}
	value, err := outcome(method, route, status, answer)
	if err != nil {
		return err
	}
	return a.printYAML(value)
}

// oldOrder is old for a PUT that begins something: sent again, to the next endpoint,
// it is the same order. What the old words leave out when there is no such thing is
// told on standard error. running: something runs already, and this is its record.
func (a *App) oldOrder(ctx context.Context, route string, body any) (running bool, err error) {
	r := oldRequest{method: http.MethodPut, route: route, body: body, key: *idempotencyKey(), notice: a.Out}
	status, answer, err := a.do(ctx, r)
	if err != nil {
		return false, err
	}
	value, err := outcome(r.method, r.route, status, answer)
	if err != nil {
		return false, err
	}
	if p, ok := problem(answer); ok && status == http.StatusNotFound {
		fmt.Fprintln(a.Err, "commctl:", legible(strings.Join(problemLines(p), "; ")))
	}
	record, _ := value.(map[string]any)
	return status == http.StatusOK && len(record) > 0, a.printYAML(value)
}

// deleteEach deletes one thing after the other and prints the outcomes as a list,
// also those before a refusal.
func (a *App) deleteEach(ctx context.Context, routes []string, remove func(ctx context.Context, route string) (any, error)) error {
	var done []any
	var failed error
	for _, r := range routes {
		value, err := remove(ctx, r)
		if err != nil {
			failed = err
			break
		}
		done = append(done, value)
	}
	if len(done) == 0 {
		return failed
	}
	return errors.Join(a.printYAML(done), failed)
}

// remove deletes one thing and gives the outcome.
func (a *App) remove(ctx context.Context, route string) (any, error) {
	status, answer, err := a.do(ctx, oldRequest{method: http.MethodDelete, route: route, notice: a.Out})
	if err != nil {
		return nil, err
	}
	return outcome(http.MethodDelete, route, status, answer)
}

func (a *App) printYAML(value any) error {
	var b bytes.Buffer
	writeYAML(&b, value)
	_, err := a.Out.Write(b.Bytes())
	return err
}

// oldGet is an old verb that reads one thing. Without -o it prints as ever; with
// it, it prints and fails as new verbs do.
func oldGet[T any](a *App, cmd *cobra.Command, format format, v view[T], route string) error {
	return oldRead(a, cmd, format, route, func(text []byte) error {
		var item T
		if err := json.Unmarshal(text, &item); err != nil {
			return unreadable(err)
		}
		return renderOne(a, format, v, item)
	})
}

// oldList is an old verb that reads a list.
func oldList[T any](a *App, cmd *cobra.Command, format format, v view[T], route string) error {
	return oldRead(a, cmd, format, route, func(text []byte) error {
		var items []T
		if err := json.Unmarshal(text, &items); err != nil {
			return unreadable(err)
		}
		return renderList(a, format, v, items)
	})
}

func oldRead(a *App, cmd *cobra.Command, format format, route string, show func([]byte) error) error {
	if format == "" {
		return a.old(cmd.Context(), http.MethodGet, route, nil)
	}
	status, answer, err := a.do(cmd.Context(), oldRequest{method: http.MethodGet, route: route, notice: a.Err})
	if err != nil {
		return err
	}
	if err := failure(status, answer); err != nil {
		return err
	}
	return show(answer)
}

func unreadable(err error) error {
	return exitf(exitUsage, "the server's answer is not what this version of commctl knows: %w", err)
}
