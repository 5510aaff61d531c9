package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"commissaire/internal/fleet"
)

// maxDepth bounds how deep a body may nest; network options are the only
// member that nests at all.
const maxDepth = 32

// decodeObject reads a body: nothing, which counts as {}, or exactly one JSON
// object. What encoding/json lets pass by silence is refused here and the
// member is named: members that come twice, text after the object, numbers that
// no float64 holds, NUL in strings (Postgres cannot store it), broken UTF-8 and
// UTF-16.
func decodeObject(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) {
		return nil, fleet.InvalidField("body", "must be UTF-8")
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if len(bytes.TrimSpace(text)) == 0 {
		return map[string]any{}, nil
	}
	d := objectDecoder{json.NewDecoder(bytes.NewReader(text)), text}
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
type objectDecoder struct {
	*json.Decoder
	text []byte // all of it
}

func (d objectDecoder) value(field string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fleet.InvalidField(orBody(field), "nests deeper than %d levels", maxDepth)
	}
	begin := d.InputOffset()
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
		if strings.ContainsRune(t, utf8.RuneError) && halvesPair(d.text[begin:d.InputOffset()]) {
			return nil, fleet.InvalidField(orBody(field), `must not hold half of a surrogate pair, such as \ud800`)
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

// halvesPair says whether a string, as JSON has it, escapes half of a surrogate pair.
// That is no character, and encoding/json makes U+FFFD of it.
func halvesPair(text []byte) bool {
	for {
		_, escape, found := bytes.Cut(text, []byte(`\`))
		if !found {
			return false
		}
		text = escape[1:]
		first := codeUnit(escape)
		if !utf16.IsSurrogate(first) {
			continue
		}
		next, found := bytes.CutPrefix(escape[5:], []byte(`\`))
		if !found || utf16.DecodeRune(first, codeUnit(next)) == utf8.RuneError {
			return true
		}
		text = next[5:]
	}
}

// codeUnit is that of UTF-16 which an escape stands for, given from its u on. It is 0
// for other escapes.
func codeUnit(escape []byte) rune {
	if len(escape) < 5 || escape[0] != 'u' {
		return 0
	}
	unit, _ := strconv.ParseUint(string(escape[1:5]), 16, 16) // the decoder has read it
	return rune(unit)
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
