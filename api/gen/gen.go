// Package gen is what oapi-codegen makes of ../openapi.yaml: the models, the
// strict server interface with its Echo routes, and the Go client. Nothing here
// is written by hand but this file; after a change of the document run
// go generate in this directory.
package gen

//go:generate go tool -modfile=../../tools/go.mod oapi-codegen -config config.yaml ../openapi.yaml
