//go:build chaos

package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// This build harms itself at one point, so that a test can prove that nothing is
// lost there. CHAOS_FAILPOINT names the point:
//
//	<activity>:<phase>:<nth>
//
// activity is a step's name as in workflow history, or "workflow-task". phase is
//
//	before   before the activity's code runs: killed
//	during   50 ms after it began, or at its end if it is quicker: killed
//	effect   its effect has happened, nobody was told: killed
//	report   Temporal has been told, the worker does not know yet: killed
//	late     as before, but the process is only stopped
//	zombie   as during, but the process is only stopped
//	twice    the activity's code runs, and at once again with the same input
//	denied   its effect has happened, but Temporal is told that it failed
//	api-before, api-effect, api-report: stopped there, for the test to kill the API
//
// nth counts from 1, over this process. The process writes the point to
// CHAOS_FAILPOINT_HIT. Killed is by SIGKILL; stopped is by SIGSTOP, until the test
// lets it go on with SIGCONT. A process that was stopped in an activity's code
// adds the id of the workflow and of the activity, each on a line of its own, and
// when that activity has ended it writes CHAOS_FAILPOINT_HIT with ".over" behind it.
type failpoints struct{ f *failpoint }

type failpoint struct {
	activity, phase string
	nth             int
	hit             string

	mu    sync.Mutex
	seen  int
	token []byte // of the activity around whose report the point is
}

func installFailpoints(o *client.Options) failpoints {
	o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(unstick))
	spec := os.Getenv("CHAOS_FAILPOINT")
	if spec == "" {
		return failpoints{}
	}
	parts := strings.Split(spec, ":")
	if len(parts) != 3 {
		panic("CHAOS_FAILPOINT must be activity:phase:nth")
	}
	nth, err := strconv.Atoi(parts[2])
	if err != nil || nth < 1 {
		panic("CHAOS_FAILPOINT: nth must be a positive number")
	}
	f := &failpoint{activity: parts[0], phase: parts[1], nth: nth, hit: os.Getenv("CHAOS_FAILPOINT_HIT")}
	o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(f.rpc))
	return failpoints{f}
}

func (p failpoints) interceptors() []interceptor.WorkerInterceptor {
	if p.f == nil {
		return nil
	}
	return []interceptor.WorkerInterceptor{&workerFailpoint{f: p.f}}
}

// unstick shortens for how long Temporal keeps the next task of a workflow for the
// worker that has it in memory: 5 s otherwise, which each workflow of a killed
// worker waits for.
func unstick(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if r, ok := req.(*workflowservice.RespondWorkflowTaskCompletedRequest); ok && r.StickyAttributes != nil {
		r.StickyAttributes.ScheduleToStartTimeout = durationpb.New(time.Second)
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// reached proves that the point was reached.
func (f *failpoint) reached() {
	f.note("", fmt.Sprintf("%s:%s:%d\n", f.activity, f.phase, f.nth))
}

// die kills this process at once.
func (f *failpoint) die() {
	f.reached()
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// stop stops this process. It returns when somebody lets the process go on.
func (f *failpoint) stop() {
	f.reached()
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
}

// freeze is stop within the code of an activity.
func (f *failpoint) freeze(info activity.Info) {
	f.note("", fmt.Sprintf("%s:%s:%d\n%s\n%s\n", f.activity, f.phase, f.nth, info.WorkflowExecution.ID, info.ActivityID))
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
}

// note writes the file that the test waits for, whole or not at all.
func (f *failpoint) note(suffix, text string) {
	if f.hit == "" {
		return
	}
	path := f.hit + suffix
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		panic(err)
	}
}

// counted says whether this is the nth occurrence of what is to be killed.
func (f *failpoint) counted(name string) bool {
	if name != f.activity {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen++
	return f.seen == f.nth
}

// rpc strikes around the report of an activity or workflow task.
func (f *failpoint) rpc(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ours := false
	switch r := req.(type) {
	case *workflowservice.RespondActivityTaskCompletedRequest:
		ours = f.isOurs(r.TaskToken)
	case *workflowservice.RespondActivityTaskFailedRequest:
		ours = f.isOurs(r.TaskToken)
	case *workflowservice.RespondWorkflowTaskCompletedRequest:
		ours = f.counted("workflow-task")
	}
	if !ours {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	switch f.phase {
	case "effect":
		f.die()
	case "api-effect":
		f.stop()
	}
	err := invoke(ctx, method, req, reply, cc, opts...)
	switch f.phase {
	case "report":
		f.die()
	case "api-report":
		f.stop()
	}
	return err
}

func (f *failpoint) isOurs(token []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.token != nil && string(f.token) == string(token)
}

type workerFailpoint struct {
	interceptor.WorkerInterceptorBase
	f *failpoint
}

func (w *workerFailpoint) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &activityFailpoint{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, f: w.f}
}

type activityFailpoint struct {
	interceptor.ActivityInboundInterceptorBase
	f *failpoint
}

func (a *activityFailpoint) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info := activity.GetInfo(ctx)
	if !a.f.counted(info.ActivityType.Name) {
		return a.Next.ExecuteActivity(ctx, in)
	}
	const soon = 50 * time.Millisecond
	switch a.f.phase {
	case "before":
		a.f.die()
	case "during":
		time.AfterFunc(soon, a.f.die)
		_, _ = a.Next.ExecuteActivity(ctx, in)
		a.f.die()
	case "late":
		a.f.freeze(info)
		defer a.f.note(".over", "")
	case "zombie":
		freeze := sync.OnceFunc(func() { a.f.freeze(info) })
		time.AfterFunc(soon, freeze)
		defer a.f.note(".over", "")
		defer freeze()
	case "twice":
		_, _ = a.Next.ExecuteActivity(ctx, in)
		a.f.reached()
	case "denied":
		out, err := a.Next.ExecuteActivity(ctx, in)
		if err != nil {
			return out, err
		}
		a.f.reached()
		return nil, errDenied
	case "api-before":
		a.f.stop()
	}
	a.f.mu.Lock()
	a.f.token = info.TaskToken
	a.f.mu.Unlock()
	return a.Next.ExecuteActivity(ctx, in)
}

var errDenied = errors.New("a test says that this failed")
