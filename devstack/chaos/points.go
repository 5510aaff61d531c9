package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	historypb "go.temporal.io/api/history/v1"

	"commissaire/workflows"
)

// Point is one moment at which harm is done.
type Point struct {
	kind     kind
	Activity string // step's name in history, or "workflow-task"
	Phase    string // see internal/app/failpoint_chaos.go
	Nth      int    // which occurrence, from 1
}

func (p Point) String() string { return p.kind.name + " " + p.Failpoint() }

// Failpoint is how the point is written in CHAOS_FAILPOINT.
func (p Point) Failpoint() string { return fmt.Sprintf("%s:%s:%d", p.Activity, p.Phase, p.Nth) }

// Replaced says that the worker is stopped there, and goes on when another one has
// taken its place.
func (p Point) Replaced() bool { return p.Phase == "late" || p.Phase == "zombie" }

// API says that the worker is only held there while the API dies.
func (p Point) API() bool { return strings.HasPrefix(p.Phase, "api-") }

// Lives says that the worker goes on by itself.
func (p Point) Lives() bool { return p.Phase == "twice" || p.Phase == "denied" }

// Phases of an activity. Kills are tried at each of its occurrences, so on each
// host; the others at one occurrence, each at another one as far as there are
// enough.
var (
	everywhere = []string{"before", "effect", "report"}
	somewhere  = []string{"twice", "denied", "during", "late", "zombie", "api-before", "api-effect", "api-report"}
)

// Workflow tasks are many and much alike, so only some are tried.
const (
	workflowTask  = "workflow-task"
	workflowTasks = 4 // every so many
)

// occurrences counts what happened in a clean run, by the names of activities, and
// workflow tasks.
type occurrences map[string]int

// occurrences reads the histories of the workflows of a clean run.
func (l *lane) occurrences(ctx context.Context, k kind, ids []string) (occurrences, error) {
	counts := occurrences{}
	for _, id := range l.roots(k, ids) {
		err := l.walk(ctx, id, "", func(_ string, e *historypb.HistoryEvent) {
			if a := e.GetActivityTaskScheduledEventAttributes(); a != nil {
				counts[a.GetActivityType().GetName()]++
			}
			if e.GetWorkflowTaskCompletedEventAttributes() != nil {
				counts[workflowTask]++
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// least keeps of two counts the smaller ones: runs differ a little in how often
// the workflow of a rollout looks around.
func (o occurrences) least(other occurrences) occurrences {
	out := occurrences{}
	for name, n := range o {
		if n = min(n, other[name]); n > 0 {
			out[name] = n
		}
	}
	return out
}

// points are where harm is done in an operation of a kind.
func (o occurrences) points(k kind) (points []Point) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if k.name == kindForced && name == workflows.RunCommands.Name {
			continue // it reports that it was cancelled, and the moments of a command are tried with force, too
		}
		if name == workflowTask {
			every := workflowTasks
			if k.command() { // it has few
				every = 1
			}
			for nth := 1; nth <= o[name]; nth += every {
				points = append(points, Point{k, name, "effect", nth}, Point{k, name, "report", nth})
			}
			continue
		}
		for nth := 1; nth <= o[name]; nth++ {
			for _, phase := range everywhere {
				points = append(points, Point{k, name, phase, nth})
			}
		}
		for i, phase := range somewhere {
			points = append(points, Point{k, name, phase, 1 + i%o[name]})
		}
	}
	return points
}
