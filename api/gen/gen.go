// Package gen is what oapi-codegen makes of ../openapi.yaml for the server: the
// models and the strict server interface with its Echo routes. Nothing here is
// written by hand but this file; after a change of the document run go generate
// in this directory.
package gen

//go:generate go tool -modfile=../../tools/go.mod oapi-codegen -config config.yaml ../openapi.yaml
