package commctl

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"commissaire/api/client"
)

// maxEventLine bounds one line of a stream, in bytes. An event holds at most one
// chunk of output; this is far more.
const maxEventLine = 16 << 20

// event is one of the events of an operation.
type event struct {
	id   string // to go on behind it; "" of the end, and of events that were made up from a poll
	name string // operation, host, step, steer, output or end
	client.Event
}

// errStreamBroken says that a stream ended without saying so. What came until then
// is good.
var errStreamBroken = errors.New("the stream of events broke off")

// readEvents gives the events of a stream (WHATWG HTML, section 9.2) to handle, in
// order. heard is called whenever something came, be it a comment. It returns the
// first error of handle, or errStreamBroken; it does not know how streams end well.
func readEvents(r io.Reader, heard func(), handle func(event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxEventLine)
	var e event
	var data []string
	for lines.Scan() {
		heard()
		line := lines.Text()
		if line == "" {
			if data == nil {
				e = event{}
				continue
			}
			if err := json.Unmarshal([]byte(strings.Join(data, "\n")), &e.Event); err != nil {
				return unreadable(fmt.Errorf("event %q: %w", e.name, err))
			}
			if err := handle(e); err != nil {
				return err
			}
			e, data = event{}, nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			data = append(data, value)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return unreadable(lines.Err())
	}
	return errStreamBroken
}
