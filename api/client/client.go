// Package client is the Go client that oapi-codegen makes of ../openapi.yaml,
// and its models. Nothing here is written by hand but this file; after a change
// of the document run go generate in this directory.
package client

//go:generate go tool -modfile=../../tools/go.mod oapi-codegen -config config.yaml ../openapi.yaml
