package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"commissaire/internal/fleet"
)

// match finds out which operation of the document a routed request is.
func match(known endpoints) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if e, ok := known[c.Request().Method+" "+c.Path()]; ok { // without a route, Echo says so
				call := callOf(c.Request().Context())
				call.operation, call.endpoint = e.id, &e
			}
			return next(c)
		}
	}
}

// validate checks a routed request against the document and gives handlers
// what was checked: path parameters in canonical form, the body as one strict
// JSON object.
func validate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if e := callOf(c.Request().Context()).endpoint; e != nil {
			if err := e.check(c); err != nil {
				return err
			}
		}
		return next(c)
	}
}

func (e endpoint) check(c echo.Context) error {
	if err := e.checkPathParams(c); err != nil {
		return err
	}
	if err := e.checkQuery(c.Request().URL.RawQuery); err != nil {
		return err
	}
	if err := e.checkHeaders(c.Request().Header); err != nil {
		return err
	}
	return e.checkBody(c.Request())
}

// checkPathParams turns a value that nothing can be called into a 404, as the v0
// contract has it, says what is allowed, and writes addresses as the store does.
func (e endpoint) checkPathParams(c echo.Context) error {
	values := slices.Clone(c.ParamValues())
	for i, name := range c.ParamNames() {
		var err error
		switch name {
		case "address":
			values[i], err = fleet.ParseAddress(values[i])
		case "name":
			values[i], err = fleet.ParseName(name, values[i])
		default:
			if err = e.param(openapi3.ParameterInPath, name).Schema.Value.VisitJSON(values[i]); err != nil {
				err = invalid(err, name)
			}
		}
		var wrong *fleet.Error
		if errors.As(err, &wrong) {
			wrong.Kind = fleet.NotFound
			wrong.Detail = "in the path, " + wrong.Detail
			return wrong
		}
	}
	c.SetParamValues(values...)
	return nil
}

func (e endpoint) param(in, name string) *openapi3.Parameter {
	for _, p := range e.params {
		if p.In == in && p.Name == name {
			return p
		}
	}
	panic("no parameter " + name + " in the document")
}

// checkQuery checks the parameters that the document knows and refuses others:
// who sends one expects it to mean something.
func (e endpoint) checkQuery(raw string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return fleet.InvalidField("query", "is not of the form name=value&name=value")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.ContainsFunc(e.params, func(p *openapi3.Parameter) bool { return p.In == openapi3.ParameterInQuery && p.Name == name }) {
			return fleet.InvalidField(clip(name), "is not a known query parameter")
		}
	}
	for _, p := range e.params {
		if p.In != openapi3.ParameterInQuery {
			continue
		}
		if err := checkParam(p, query[p.Name]); err != nil {
			return err
		}
	}
	return nil
}

// checkHeaders checks the headers that the document knows; there are always others.
func (e endpoint) checkHeaders(header http.Header) error {
	for _, p := range e.params {
		if p.In != openapi3.ParameterInHeader {
			continue
		}
		if err := checkParam(p, header.Values(p.Name)); err != nil {
			return err
		}
	}
	return nil
}

// checkParam checks what was given for one parameter of the query or the header.
func checkParam(p *openapi3.Parameter, values []string) error {
	if len(values) == 0 {
		return nil
	}
	if len(values) > 1 {
		return fleet.InvalidField(p.Name, "must be given once")
	}
	var value any = values[0]
	schema := p.Schema.Value
	switch {
	case schema.Type.Is(openapi3.TypeInteger):
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil {
			return fleet.InvalidField(p.Name, "must be an integer")
		}
		value = float64(n)
	case schema.Type.Is(openapi3.TypeBoolean):
		if values[0] != "true" && values[0] != "false" {
			return fleet.InvalidField(p.Name, "must be true or false")
		}
		value = values[0] == "true"
	}
	if err := schema.VisitJSON(value, openapi3.MultiErrors()); err != nil {
		return invalid(err, p.Name)
	}
	return nil
}

// checkBody reads the body, checks it and puts it back in the one form that
// decodes to what was checked.
func (e endpoint) checkBody(r *http.Request) error {
	if e.body == nil {
		return nil // GET and DELETE; commctl sends {} with DELETE, nobody reads it
	}
	if r.Header.Get("Content-Encoding") != "" {
		return fleet.Errorf(unsupported, "send the body as it is, without Content-Encoding")
	}
	text, err := readBody(r)
	if err != nil {
		return err
	}
	object, err := decodeObject(text)
	if err != nil {
		return err
	}
	if err := e.body.VisitJSON(object, openapi3.MultiErrors(), openapi3.VisitAsRequest()); err != nil {
		return invalid(err, "")
	}
	checked, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encode checked body: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(checked))
	r.ContentLength = int64(len(checked))
	r.Header.Set("Content-Type", "application/json") // clients of 2017 send none
	return nil
}

func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBodyBytes {
		return nil, errTooLarge()
	}
	text, err := io.ReadAll(r.Body)
	var tooMuch *http.MaxBytesError
	if errors.As(err, &tooMuch) {
		return nil, errTooLarge()
	}
	if err != nil {
		return nil, &fleet.Error{Kind: fleet.Invalid, Detail: "the body ends too early or came too slowly", Err: err}
	}
	return text, nil
}

func errTooLarge() error {
	detail := fmt.Sprintf("is larger than %d bytes", maxBodyBytes)
	return &fleet.Error{Kind: tooLarge, Detail: "the body " + detail, Fields: []fleet.FieldError{{Field: "body", Detail: detail}}}
}

// invalid names every member that does not fit its schema. The texts are ours,
// since a library's may quote the value, and the value may be a key.
func invalid(err error, field string) error {
	var fields []fleet.FieldError
	collect(err, func(e *openapi3.SchemaError) {
		if e.SchemaField == "properties" { // an unknown member; the error is about the object it is in
			for name := range e.Value.(map[string]any) {
				if e.Schema.Properties[name] == nil {
					fields = append(fields, fleet.FieldError{Field: pointer(field, append(e.JSONPointer(), name)), Detail: "is not a known member"})
				}
			}
			return
		}
		fields = append(fields, fleet.FieldError{Field: pointer(field, e.JSONPointer()), Detail: mismatch(e)})
	})
	if len(fields) == 0 {
		// Without the cause, which may quote the value and would reach the log.
		return fleet.Errorf(fleet.Invalid, "the request does not fit the API document")
	}
	slices.SortFunc(fields, func(a, b fleet.FieldError) int { return strings.Compare(a.Field+a.Detail, b.Field+b.Detail) })
	fields = slices.Compact(fields)
	const most = 20
	if len(fields) > most {
		fields = fields[:most]
	}
	return &fleet.Error{Kind: fleet.Invalid, Detail: strings.TrimSpace(fields[0].Field + " " + fields[0].Detail), Fields: fields}
}

// collect goes through nested errors down to those about one member each.
func collect(err error, found func(*openapi3.SchemaError)) {
	if e, ok := err.(*openapi3.SchemaError); ok && e.SchemaField == "oneOf" {
		found(e) // its title says what it may be; each alternative alone would mislead
		return
	}
	var many openapi3.MultiError
	if errors.As(err, &many) {
		for _, e := range many {
			collect(e, found)
		}
		return
	}
	var one *openapi3.SchemaError
	if !errors.As(err, &one) {
		return
	}
	if one.Origin != nil && one.SchemaField != "oneOf" { // allOf: what matters is inside
		inner := false
		collect(one.Origin, func(e *openapi3.SchemaError) { inner = true; found(e) })
		if inner {
			return
		}
	}
	found(one)
}

// pointer writes a path into the body as people do: new[1], options.mtu.
func pointer(field string, path []string) string {
	var b strings.Builder
	b.WriteString(field)
	for _, p := range path {
		if _, err := strconv.Atoi(p); err == nil {
			b.WriteString("[" + p + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(clip(p))
	}
	return b.String()
}

// clip shortens a member name of a request for use in an answer.
func clip(name string) string {
	const most = 64
	if len(name) <= most {
		return name
	}
	return strings.ToValidUTF8(name[:most], "") + "…"
}

func mismatch(e *openapi3.SchemaError) string {
	s := e.Schema
	switch e.SchemaField {
	case "type", "nullable":
		if s.Type.Is("integer") || s.Type.Is("object") || s.Type.Is("array") {
			return "must be an " + (*s.Type)[0]
		}
		if s.Type != nil {
			return "must be a " + strings.Join(*s.Type, " or ")
		}
	case "required":
		return "is missing"
	case "enum":
		return fmt.Sprintf("must be one of %v", s.Enum)
	case "pattern":
		if s.Title != "" {
			return "must be " + s.Title
		}
		return "must match " + s.Pattern
	case "oneOf":
		return "must be " + s.Title
	case "maxLength":
		return fmt.Sprintf("must not be longer than %d characters", *s.MaxLength)
	case "minLength", "minItems":
		return "must not be empty" // nothing must have more than one
	case "maxItems":
		return fmt.Sprintf("must not have more than %d entries", *s.MaxItems)
	case "minimum", "maximum":
		return fmt.Sprintf("must be between %v and %v", number(s.Min), number(s.Max))
	}
	return "does not fit the API document"
}

func number(f *float64) string {
	if f == nil {
		return "…"
	}
	return strconv.FormatFloat(*f, 'f', -1, 64)
}
