package hostsource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"commissaire/internal/fleet"
)

// entry is a host of a list in JSON. Members that are not here are the inventory's own.
type entry struct {
	Address string `json:"address"`
	fleet.SourceFacts
}

// parseList reads a list of hosts. The error names the entry, counted from 1.
func parseList(text []byte) (map[string]fleet.SourceFacts, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, &Error{Reason: "its answer is no list in JSON: " + jsonFault(err)}
	}
	if raw == nil {
		return nil, &Error{Reason: "its answer is no list in JSON, but null"}
	}
	found := map[string]fleet.SourceFacts{}
	for i, text := range raw {
		var e entry
		if err := json.Unmarshal(text, &e); err != nil {
			return nil, &Error{Reason: fmt.Sprintf("entry %d: %s", i+1, jsonFault(err))}
		}
		address, err := fleet.ParseAddress(e.Address)
		if err == nil {
			err = e.Check()
		}
		if err == nil {
			err = add(found, address, e.SourceFacts)
		}
		if err != nil {
			return nil, &Error{Reason: fmt.Sprintf("entry %d: %s", i+1, plain(err))}
		}
	}
	return found, nil
}

// add adds what is said of a host. The same twice is no harm.
func add(to map[string]fleet.SourceFacts, address string, f fleet.SourceFacts) error {
	if before, twice := to[address]; twice && !reflect.DeepEqual(before, f) {
		return fmt.Errorf("host %s is in it twice, with other facts", address)
	}
	to[address] = f
	return nil
}

// plain gives the sentence of an error about a member.
func plain(err error) string {
	var e *fleet.Error
	if errors.As(err, &e) && len(e.Fields) > 0 {
		return e.Fields[0].Field + " " + e.Fields[0].Detail
	}
	return err.Error()
}

// decode reads one value in JSON, with numbers as they are written. The error is for a
// reason: it repeats nothing of the text.
func decode(text []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(to); err != nil {
		return errors.New(jsonFault(err))
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more text after its end")
	}
	return nil
}

// jsonFault says what is wrong with JSON without repeating any of it.
func jsonFault(err error) string {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &kind) && kind.Field != "":
		return kind.Field[strings.LastIndexByte(kind.Field, '.')+1:] + " must be " + jsonKind(kind.Type)
	case errors.As(err, &kind):
		return "must be " + jsonKind(kind.Type) + ", not " + kind.Value
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON at byte %d", syntax.Offset)
	}
	return "not JSON"
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.String:
		return "text"
	}
	return "a whole number"
}
