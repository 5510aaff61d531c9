// Package worker builds the Temporal worker: which workflows and activities it
// runs, and how many at a time. Workers are stateless; any number may run,
// anywhere with SSH reach to the hosts.
package worker

import (
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"

	"commissaire/activities"
	"commissaire/workflows"
)

// Options size a worker.
type Options struct {
	TaskQueue    string
	Slots        int           // steps at a time
	StopTimeout  time.Duration // how long steps may take to hand over after a stop
	Fatal        func(error)   // Temporal will not give it work any more, and why
	Interceptors []interceptor.WorkerInterceptor
}

// New builds a worker; nothing runs before it is started.
func New(c client.Client, o Options, record *activities.Record, hosts *activities.Hosts) worker.Worker {
	w := worker.New(c, o.TaskQueue, worker.Options{
		MaxConcurrentActivityExecutionSize: o.Slots,
		WorkerStopTimeout:                  o.StopTimeout,
		OnFatalError:                       o.Fatal,
		Interceptors:                       o.Interceptors,
	})
	Register(w, record, hosts)
	return w
}

// Register binds every workflow and every step.
func Register(r worker.Registry, record *activities.Record, hosts *activities.Hosts) {
	r.RegisterWorkflow(workflows.Bootstrap)
	r.RegisterWorkflow(workflows.Restart)
	r.RegisterWorkflow(workflows.RestartHost)

	workflows.BeginOperation.Bind(r, record.BeginOperation)
	workflows.NextHost.Bind(r, record.NextHost)
	workflows.EndOperation.Bind(r, record.EndOperation)
	workflows.BeginHost.Bind(r, record.BeginHost)
	workflows.EndHost.Bind(r, record.EndHost)

	workflows.Investigate.Bind(r, hosts.Investigate)
	workflows.Prepare.Bind(r, hosts.Prepare)
	workflows.Check.Bind(r, hosts.Check)
	workflows.Reboot.Bind(r, hosts.Reboot)
	workflows.AwaitBoot.Bind(r, hosts.AwaitBoot)
	workflows.Verify.Bind(r, hosts.Verify)
}
