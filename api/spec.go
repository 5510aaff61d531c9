package api

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"

	"commissaire/internal/fleet"
)

// document is the API document as it is served.
//
//go:embed openapi.yaml
var document []byte

// endpoint is one operation of the document, made ready for checking requests:
// the document is parsed once, at the start.
type endpoint struct {
	id     string // operationId
	method string
	params []*openapi3.Parameter
	body   *openapi3.Schema // nil when the operation takes none
}

// endpoints are keyed by method and Echo path, "GET /api/v0/host/:address".
type endpoints map[string]endpoint

// documented are those of our document, read once in a process: it takes longer than
// all else that makes an API.
var documented = sync.OnceValue(func() endpoints { return mustLoad(document) })

// mustLoad reads the document. It is part of the binary and tested, so a fault
// in it is a fault of the build.
func mustLoad(text []byte) endpoints {
	defineFormats()
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err == nil {
		err = doc.Validate(context.Background(), openapi3.DisableExamplesValidation())
	}
	if err != nil {
		panic(fmt.Sprintf("openapi.yaml: %v", err))
	}
	all := endpoints{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			e := endpoint{id: op.OperationID, method: method}
			for _, p := range append(item.Parameters, op.Parameters...) {
				e.params = append(e.params, p.Value)
			}
			if op.RequestBody != nil {
				e.body = op.RequestBody.Value.Content["application/json"].Schema.Value
			}
			all[method+" "+echoPath(path)] = e
		}
	}
	return all
}

// defineFormats teaches the checking of schemas what the document calls a
// timespan. Formats are the library's globals.
var defineFormats = sync.OnceFunc(func() {
	openapi3.DefineStringFormatValidator("timespan", openapi3.NewCallbackValidator(func(s string) error {
		_, err := fleet.ParseDuration(s)
		return err
	}))
})

// echoPath writes a path of the document as Echo does.
func echoPath(path string) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(path)
}
