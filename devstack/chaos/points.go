package chaos

import (
	"context"
	"fmt"
	"slices"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
)

// Point is one moment at which a worker is killed, or stopped for a while.
type Point struct {
	Kind     string // operation: bootstrap or restart
	Activity string // step's name in history, or "workflow-task"
	Phase    string // before, during, effect, report, late, zombie; see internal/app/failpoint_chaos.go
	Nth      int    // which occurrence, from 1
}

func (p Point) String() string { return p.Kind + " " + p.Failpoint() }

// Failpoint is how the point is written in CHAOS_FAILPOINT.
func (p Point) Failpoint() string { return fmt.Sprintf("%s:%s:%d", p.Activity, p.Phase, p.Nth) }

// Stops says that the worker is not killed there but stopped, and goes on when
// another one has taken its place.
func (p Point) Stops() bool { return p.Phase == "late" || p.Phase == "zombie" }

const workflowTask = "workflow-task"

// pointsOf reads the histories of the workflows of a clean run and gives every
// point at which its worker could have died.
func pointsOf(ctx context.Context, c client.Client, kind string, workflowIDs []string) ([]Point, error) {
	counts := map[string]int{}
	for _, id := range workflowIDs {
		events := c.GetWorkflowHistory(ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			if err != nil {
				return nil, fmt.Errorf("history of %s: %w", id, err)
			}
			switch {
			case e.GetActivityTaskScheduledEventAttributes() != nil:
				counts[e.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName()]++
			case e.GetWorkflowTaskCompletedEventAttributes() != nil:
				counts[workflowTask]++
			}
		}
	}
	var names []string
	for name := range counts {
		names = append(names, name)
	}
	slices.Sort(names)
	var points []Point
	for _, name := range names {
		phases := []string{"before", "during", "effect", "report", "late", "zombie"}
		if name == workflowTask {
			phases = []string{"effect", "report"}
		}
		for nth := 1; nth <= counts[name]; nth++ {
			for _, phase := range phases {
				points = append(points, Point{Kind: kind, Activity: name, Phase: phase, Nth: nth})
			}
		}
	}
	return points, nil
}
