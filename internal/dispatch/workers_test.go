package dispatch

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func (f *frontend) DescribeTaskQueue(_ context.Context, in *workflowservice.DescribeTaskQueueRequest) (*workflowservice.DescribeTaskQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answer != nil {
		return nil, f.answer
	}
	out := &workflowservice.DescribeTaskQueueResponse{}
	if in.TaskQueue.Name == "steps" && in.TaskQueueType == enumspb.TASK_QUEUE_TYPE_ACTIVITY {
		for who, age := range map[string]time.Duration{"1@a": time.Second, "2@a": 2 * time.Minute, "3@b": 4 * time.Minute} {
			p := &taskqueuepb.PollerInfo{Identity: who, LastAccessTime: timestamppb.New(time.Now().Add(-age))}
			out.Pollers = append(out.Pollers, p, p)
		}
	}
	return out, nil
}

func TestWorkers(t *testing.T) {
	t.Parallel()
	f, c := newFrontend(t)
	d := New(c, nil, Options{TaskQueue: "steps"}, slog.New(slog.DiscardHandler))
	n, err := d.Workers(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, n, "each counts once, and the one that is silent does not")
	n, err = New(c, nil, Options{TaskQueue: "other"}, slog.New(slog.DiscardHandler)).Workers(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	f.locked(func() { f.answer = serviceerror.NewInternal("broken") })
	_, err = d.Workers(t.Context())
	require.Error(t, err)
}
