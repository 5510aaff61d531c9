//go:build !chaos

package app

import (
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
)

// failpoints exist only in builds for the chaos test (failpoint_chaos.go).
type failpoints struct{}

func installFailpoints(*client.Options) failpoints { return failpoints{} }

func (failpoints) interceptors() []interceptor.WorkerInterceptor { return nil }
