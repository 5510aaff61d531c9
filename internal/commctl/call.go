package commctl

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// maxAnswer bounds what is read of one answer, in bytes.
const maxAnswer = 256 << 20

// send is a request of the generated client, ready to go.
type send func(ctx context.Context) (*http.Response, error)

// exchange sends a request and reads the whole answer, within callTime and the time
// of the context. An answer that is not 2xx is an error with its exit code.
func exchange(whole context.Context, request send) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(whole, callTime)
	defer cancel()
	r, err := request(ctx)
	var body []byte
	if err == nil {
		defer func() { _ = r.Body.Close() }()
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxAnswer)); err != nil && ctx.Err() == nil {
			err = exitf(exitUnreachable, "the answer broke off: %w", err)
		}
	}
	switch {
	case err != nil && whole.Err() != nil: // the caller's limit, not ours
		return nil, nil, whole.Err()
	case err != nil && ctx.Err() != nil:
		return nil, nil, late(ctx.Err())
	case err != nil:
		return nil, nil, err
	}
	return r, body, failure(r.StatusCode, body)
}

// fetch sends a request and decodes the answer.
func fetch[T any](ctx context.Context, request send) (T, error) {
	value, _, err := fetchWith[T](ctx, request)
	return value, err
}

// fetchWith is fetch, and gives the header of the answer too.
func fetchWith[T any](ctx context.Context, request send) (value T, header http.Header, err error) {
	r, body, err := exchange(ctx, request)
	if err != nil {
		return value, nil, err
	}
	if err := foreign(r, body); err != nil {
		return value, nil, err
	}
	if err := json.Unmarshal(body, &value); err != nil {
		return value, nil, unreadable(err)
	}
	return value, r.Header, nil
}

// order sends a request whose answer says nothing but that it was done.
func order(ctx context.Context, request send) error {
	r, body, err := exchange(ctx, request)
	if err != nil {
		return err
	}
	return foreign(r, body)
}

// given is a parameter of a request, nil when it is "".
func given[T ~string](value T) *T {
	if value == "" {
		return nil
	}
	return &value
}

func pointer[T any](value T) *T { return &value }

// parseTime reads a time as the API writes it; the zero time is never.
func parseTime(text string) time.Time {
	t, err := time.Parse(fleet.TimeFormat, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// shortTime shows a time of the API to the second, "" for never.
func shortTime(text string) string {
	t := parseTime(text)
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

// took shows how long something lasted, "" when it has not ended.
func took(from, to string) string {
	began, ended := parseTime(from), parseTime(to)
	if began.IsZero() || ended.IsZero() {
		return ""
	}
	return lasting(ended.Sub(began))
}

// lasting shows a time span to the second, below ten seconds to the tenth.
func lasting(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 10*time.Second:
		d = d.Round(100 * time.Millisecond)
	default:
		d = d.Round(time.Second)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// clientTelling is the generated client; what it does about dead endpoints is told
// to notice.
func (a *App) clientTelling(notice io.Writer) (*client.ClientWithResponses, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	return client.NewClientWithResponses(c.base(), client.WithHTTPClient(c.doer(notice)))
}
