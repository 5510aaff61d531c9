package dispatch

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	deploymentpb "go.temporal.io/api/deployment/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// frontend plays the few calls of a Temporal frontend that the dispatcher makes,
// over the wire. The real one is a module of its own, with tests of its own.
type frontend struct {
	workflowservice.UnimplementedWorkflowServiceServer
	healthpb.UnimplementedHealthServer

	mu       sync.Mutex
	runs     map[string]*run // by workflow id
	starts   []*workflowservice.StartWorkflowExecutionRequest
	cancels  []string // run ids
	signals  []string // workflow ids
	checks   int      // of its health
	answer   error    // to everything, nil for the truth
	versions deployed
}

// run is the latest run of a workflow.
type run struct {
	id     string
	memo   *commonpb.Memo
	status enumspb.WorkflowExecutionStatus
}

// deployed is what the frontend knows of versions of workers.
type deployed struct {
	known   bool
	current string // build id, "" for none
	token   int
	sets    []string
	race    string // what somebody else makes current before the next attempt
}

// newFrontend gives one, and a client of it.
func newFrontend(t *testing.T) (*frontend, client.Client) {
	t.Helper()
	f := &frontend{runs: map[string]*run{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		out, err := handle(ctx, in)
		if err != nil {
			err = serviceerror.ToStatus(err).Err()
		}
		return out, err
	}))
	workflowservice.RegisterWorkflowServiceServer(server, f)
	healthpb.RegisterHealthServer(server, f)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	c, err := client.NewLazyClient(client.Options{
		HostPort: listener.Addr().String(), Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(unhurried)}},
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return f, c
}

// unhurried waits for the answer to a call also when the machine is busy for longer than
// the dispatcher gives Temporal: the frontend always answers.
func unhurried(ctx context.Context, method string, in, out any, c *grpc.ClientConn, call grpc.UnaryInvoker, o ...grpc.CallOption) error {
	return call(context.WithoutCancel(ctx), method, in, out, c, o...)
}

// locked does something to the frontend while it does nothing itself.
func (f *frontend) locked(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *frontend) GetSystemInfo(context.Context, *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	return &workflowservice.GetSystemInfoResponse{Capabilities: &workflowservice.GetSystemInfoResponse_Capabilities{}}, nil
}

func (f *frontend) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks++
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, f.answer
}

func (f *frontend) StartWorkflowExecution(_ context.Context, in *workflowservice.StartWorkflowExecutionRequest) (*workflowservice.StartWorkflowExecutionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answer != nil {
		return nil, f.answer
	}
	if old := f.runs[in.WorkflowId]; old != nil && old.status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return nil, serviceerror.NewWorkflowExecutionAlreadyStarted("it runs", in.RequestId, old.id)
	}
	f.starts = append(f.starts, in)
	r := &run{id: "run-" + strconv.Itoa(len(f.starts)), memo: in.Memo, status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING}
	f.runs[in.WorkflowId] = r
	return &workflowservice.StartWorkflowExecutionResponse{RunId: r.id}, nil
}

func (f *frontend) DescribeWorkflowExecution(_ context.Context, in *workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.runs[in.Execution.WorkflowId]
	switch {
	case f.answer != nil:
		return nil, f.answer
	case r == nil:
		return nil, serviceerror.NewNotFound("no such workflow")
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{
		Execution: &commonpb.WorkflowExecution{WorkflowId: in.Execution.WorkflowId, RunId: r.id},
		Type:      &commonpb.WorkflowType{}, Status: r.status, Memo: r.memo, SearchAttributes: &commonpb.SearchAttributes{},
	}}, nil
}

func (f *frontend) RequestCancelWorkflowExecution(_ context.Context, in *workflowservice.RequestCancelWorkflowExecutionRequest) (*workflowservice.RequestCancelWorkflowExecutionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancels = append(f.cancels, in.WorkflowExecution.RunId)
	return &workflowservice.RequestCancelWorkflowExecutionResponse{}, f.answer
}

func (f *frontend) SignalWorkflowExecution(_ context.Context, in *workflowservice.SignalWorkflowExecutionRequest) (*workflowservice.SignalWorkflowExecutionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answer != nil {
		return nil, f.answer
	}
	if f.runs[in.WorkflowExecution.WorkflowId] == nil {
		return nil, serviceerror.NewNotFound("no such workflow")
	}
	f.signals = append(f.signals, in.WorkflowExecution.WorkflowId+" "+in.SignalName)
	return &workflowservice.SignalWorkflowExecutionResponse{}, nil
}

func (f *frontend) DescribeWorkerDeployment(_ context.Context, in *workflowservice.DescribeWorkerDeploymentRequest) (*workflowservice.DescribeWorkerDeploymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &f.versions
	switch {
	case f.answer != nil:
		return nil, f.answer
	case !v.known:
		return nil, serviceerror.NewNotFound("no such deployment")
	}
	out := &workflowservice.DescribeWorkerDeploymentResponse{
		ConflictToken:        []byte(strconv.Itoa(v.token)),
		WorkerDeploymentInfo: &deploymentpb.WorkerDeploymentInfo{RoutingConfig: &deploymentpb.RoutingConfig{}},
	}
	if v.current != "" {
		out.WorkerDeploymentInfo.RoutingConfig.CurrentDeploymentVersion = &deploymentpb.WorkerDeploymentVersion{DeploymentName: in.DeploymentName, BuildId: v.current}
	}
	if v.race != "" {
		v.current, v.race = v.race, ""
		v.token++
	}
	return out, nil
}

func (f *frontend) SetWorkerDeploymentCurrentVersion(_ context.Context, in *workflowservice.SetWorkerDeploymentCurrentVersionRequest) (*workflowservice.SetWorkerDeploymentCurrentVersionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &f.versions
	if string(in.ConflictToken) != strconv.Itoa(v.token) {
		return nil, serviceerror.NewFailedPrecondition("conflict token is old")
	}
	v.current = in.BuildId
	v.token++
	v.sets = append(v.sets, in.BuildId)
	return &workflowservice.SetWorkerDeploymentCurrentVersionResponse{}, nil
}
