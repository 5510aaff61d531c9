package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"commissaire/internal/fleet"
)

// maxDepth bounds how deep a body may nest; network options are the only
// member that nests at all.
const maxDepth = 32

// decodeObject reads a body: nothing, which counts as {}, or exactly one JSON
// object. What encoding/json lets pass by silence is refused here and the
// member is named: members that come twice, text after the object, numbers that
// no float64 holds, NUL in strings (Postgres cannot store it), broken UTF-8.
func decodeObject(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) {
		return nil, fleet.InvalidField("body", "must be UTF-8")
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if len(bytes.TrimSpace(text)) == 0 {
		return map[string]any{}, nil
	}
	d := objectDecoder{json.NewDecoder(bytes.NewReader(text))}
	d.UseNumber()
	value, err := d.value("", 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fleet.InvalidField("body", "goes on after the JSON value")
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, fleet.InvalidField("body", "must be a JSON object")
	}
	return object, nil
}

// objectDecoder decodes token by token, to see what a map would hide.
type objectDecoder struct{ *json.Decoder }

func (d objectDecoder) value(field string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fleet.InvalidField(orBody(field), "nests deeper than %d levels", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return nil, notJSON(field)
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return d.object(field, depth)
		}
		return d.array(field, depth)
	case json.Number:
		f, err := t.Float64()
		if err != nil {
			return nil, fleet.InvalidField(orBody(field), "is a number out of range")
		}
		return f, nil
	case string:
		if strings.ContainsRune(t, 0) {
			return nil, fleet.InvalidField(orBody(field), "must not hold NUL")
		}
		return t, nil
	}
	return token, nil // bool or nil
}

func (d objectDecoder) object(field string, depth int) (any, error) {
	object := map[string]any{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, notJSON(field)
		}
		member := clip(name)
		if field != "" {
			member = field + "." + member
		}
		if strings.ContainsRune(name, 0) {
			return nil, fleet.InvalidField(orBody(field), "must not hold NUL")
		}
		if _, twice := object[name]; twice {
			return nil, fleet.InvalidField(member, "must be given once")
		}
		if object[name], err = d.value(member, depth+1); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(field)
	}
	return object, nil
}

func (d objectDecoder) array(field string, depth int) (any, error) {
	array := []any{}
	for d.More() {
		value, err := d.value(field+"["+strconv.Itoa(len(array))+"]", depth+1)
		if err != nil {
			return nil, err
		}
		array = append(array, value)
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(field)
	}
	return array, nil
}

// notJSON says where the text stops being JSON, without quoting it.
func notJSON(field string) error {
	return fleet.InvalidField(orBody(field), "is not valid JSON")
}

func orBody(field string) string {
	if field == "" {
		return "body"
	}
	return field
}
