// Package worker builds the Temporal worker: which workflows and activities it
// runs, and how many at a time. Workers are stateless; any number may run,
// anywhere with SSH reach to the hosts.
package worker

import (
	"strconv"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"commissaire/activities"
	"commissaire/workflows"
)

// Options size a worker.
type Options struct {
	TaskQueue    string
	Revision     int           // of the workflows; 0 for a Temporal that does not tell revisions apart
	Slots        int           // steps at a time, and as many pages of commands beside them
	Heartbeat    time.Duration // silence after which Temporal gives a step on a host to another worker
	StopTimeout  time.Duration // how long steps may take to hand over after a stop
	Fatal        func(error)   // Temporal will not give it work any more, and why
	Interceptors []interceptor.WorkerInterceptor
}

// watchSlots is how many pages of hosts a worker checks at a time, beside o.Slots. Pages
// share out the checks, so more of them would take each one longer than it may.
const watchSlots = 32

// Worker takes operations and, from queues with slots of their own, pages of commands and
// what watches hosts.
type Worker []worker.Worker

// New builds a worker; nothing runs before it is started.
func New(c client.Client, o Options, record *activities.Record, hosts *activities.Hosts, nodes *activities.Nodes, watch *activities.Watch, sources *activities.Sources, commands *activities.Commands) Worker {
	options := worker.Options{
		DeploymentOptions:                  deployment(o.Revision),
		MaxConcurrentActivityExecutionSize: o.Slots,
		WorkerStopTimeout:                  o.StopTimeout,
		MaxHeartbeatThrottleInterval:       beatsEvery(o.Heartbeat),
		OnFatalError:                       o.Fatal,
		Interceptors:                       o.Interceptors,
	}
	operations := worker.New(c, o.TaskQueue, options)
	Register(operations, record, hosts, nodes, watch, sources, commands)
	options.DisableWorkflowWorker = true
	options.MaxHeartbeatThrottleInterval = beatsEvery(min(o.Heartbeat, workflows.CommandHeartbeat))
	pages := worker.New(c, workflows.CommandQueue(o.TaskQueue), options)
	RegisterPages(pages, commands)
	options.MaxConcurrentActivityExecutionSize = watchSlots
	options.MaxHeartbeatThrottleInterval = beatsEvery(workflows.WatchHeartbeat)
	watches := worker.New(c, workflows.WatchQueue(o.TaskQueue), options)
	registerWatch(watches, watch)
	return Worker{operations, pages, watches}
}

// beatsEvery is the pause between two heartbeats, where so much silence counts as a lost
// worker. The SDK takes four fifths of it, so that a Temporal that is a second late loses
// every step that runs; and a heartbeat may be under way for as long as the pause.
func beatsEvery(silence time.Duration) time.Duration { return silence / 2 }

// Start returns when all parts ask for work.
func (w Worker) Start() error {
	for i, part := range w {
		if err := part.Start(); err != nil {
			w[:i].Stop()
			return err
		}
	}
	return nil
}

// Stop returns when the steps of all parts have handed over, or StopTimeout is over.
func (w Worker) Stop() {
	var all sync.WaitGroup
	for _, part := range w {
		all.Go(part.Stop)
	}
	all.Wait()
}

// deployment lets running operations move on to a newer revision as soon as it
// is current.
func deployment(revision int) worker.DeploymentOptions {
	if revision == 0 {
		return worker.DeploymentOptions{}
	}
	return worker.DeploymentOptions{
		UseVersioning:             true,
		Version:                   worker.WorkerDeploymentVersion{DeploymentName: workflows.Deployment, BuildID: strconv.Itoa(revision)},
		DefaultVersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	}
}

// Register binds every workflow and every step but those of RegisterPages.
func Register(r worker.Registry, record *activities.Record, hosts *activities.Hosts, nodes *activities.Nodes, watch *activities.Watch, sources *activities.Sources, commands *activities.Commands) {
	r.RegisterWorkflow(workflows.Bootstrap)
	r.RegisterWorkflow(workflows.Rollout)
	r.RegisterWorkflow(workflows.Slot)
	r.RegisterWorkflow(workflows.Register)
	r.RegisterWorkflow(workflows.Unregister)
	r.RegisterWorkflow(workflows.CheckManager)
	r.RegisterWorkflow(workflows.ReadNode)
	r.RegisterWorkflow(workflows.DiagnoseCluster)
	r.RegisterWorkflow(workflows.Uncordon)

	workflows.BeginOperation.Bind(r, record.BeginOperation)
	workflows.Plan.Bind(r, record.Plan)
	workflows.EndOperation.Bind(r, record.EndOperation)
	workflows.BeginHost.Bind(r, record.BeginHost)
	workflows.EndHost.Bind(r, record.EndHost)
	workflows.EndSlot.Bind(r, record.EndSlot)

	workflows.Investigate.Bind(r, hosts.Investigate)
	workflows.Prepare.Bind(r, hosts.Prepare)
	workflows.Install.Bind(r, hosts.Install)
	workflows.Configure.Bind(r, hosts.Configure)
	workflows.Services.Bind(r, hosts.Services)
	workflows.Check.Bind(r, hosts.Check)
	workflows.Stage.Bind(r, hosts.Stage)
	workflows.Upgrade.Bind(r, hosts.Upgrade)
	workflows.VerifyPackages.Bind(r, hosts.VerifyPackages)
	workflows.RebootNeeded.Bind(r, hosts.RebootNeeded)
	workflows.Reboot.Bind(r, hosts.Reboot)
	workflows.AwaitBoot.Bind(r, hosts.AwaitBoot)
	workflows.Verify.Bind(r, hosts.Verify)
	workflows.Settle.Bind(r, hosts.Settle)
	workflows.Stop.Bind(r, hosts.Stop)

	workflows.RegisterNode.Bind(r, nodes.Register)
	workflows.UnregisterNode.Bind(r, nodes.Unregister)
	workflows.ReadNodeStatus.Bind(r, nodes.Status)
	workflows.AskManager.Bind(r, nodes.Check)
	workflows.DiagnoseNodes.Bind(r, nodes.DiagnoseCluster)
	workflows.DiagnoseNode.Bind(r, nodes.Diagnose)
	workflows.CordonNode.Bind(r, nodes.Cordon)
	workflows.DrainNode.Bind(r, nodes.Drain)
	workflows.AwaitNode.Bind(r, nodes.Ready)
	workflows.UncordonNode.Bind(r, nodes.Uncordon)

	r.RegisterWorkflow(workflows.Watch)
	registerWatch(r, watch) // also here: the binary before this one has them in the queue of operations

	r.RegisterWorkflow(workflows.Sync)
	r.RegisterWorkflow(workflows.Refresh)
	workflows.SyncSource.Bind(r, sources.Sync)
	workflows.OrderRefresh.Bind(r, sources.Refresh)

	r.RegisterWorkflow(workflows.Command)
	workflows.StopCommands.Bind(r, commands.Stop)
	workflows.EndCommand.Bind(r, commands.End)
}

// RegisterPages binds pages of commands. Ending them is a step of operations: it must not
// wait until another command has come to its end.
func RegisterPages(r worker.ActivityRegistry, commands *activities.Commands) {
	workflows.RunCommands.Bind(r, commands.Page)
}

func registerWatch(r worker.ActivityRegistry, watch *activities.Watch) {
	workflows.PlanWatch.Bind(r, watch.Plan)
	workflows.WatchPage.Bind(r, watch.Page)
}
