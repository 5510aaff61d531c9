package nodes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Rules are what a record is judged by.
type Rules struct {
	// Ours are the nodes that the product has, which it may cordon and delete. Strangers
	// are those that it must leave alone. All others are disregarded.
	Ours, Strangers map[string]bool
	// Operations says of each operation how many nodes it may have cordoned at once.
	Operations map[string]int
	// Managers say the same of all operations together.
	Managers []Manager
}

// Manager is a container manager with a budget over all its clusters.
type Manager struct {
	Name  string
	Most  int
	Nodes map[string]bool
}

// Verdict is what a record says. Counts of what must not be are 0 when all is well.
type Verdict struct {
	OverBudget     int // pods taken below what a budget wants, and cordons too many
	ForeignRemoved int // cordons of others that were opened, and nodes of others that were touched
	Leaked         int // nodes that bear a mark of ours at the end, or are closed and were not
	Notes          []string

	Evicted int // pods that were told to go by the Eviction API
	Most    int // nodes that were cordoned by us at once
	Events  int
}

// OK says whether every promise was held.
func (v Verdict) OK() bool { return v.OverBudget+v.ForeignRemoved+v.Leaked == 0 }

func (v *Verdict) add(count *int, e event, format string, args ...any) {
	*count++
	const most = 50
	if len(v.Notes) < most {
		v.Notes = append(v.Notes, fmt.Sprintf("%s (revision %d): %s", e.at.Format("15:04:05.000"), e.revision, fmt.Sprintf(format, args...)))
	}
}

// judge replays a record.
type judge struct {
	Rules
	Verdict
	others  map[uint64]bool
	nodes   map[string]Node
	pods    map[string]Pod
	budgets map[string]Budget
	closed  map[types.UID]bool // how others want the node to be
	events  []event
	at      int // of these is judged
}

// Judge replays what was recorded until now, change by change, and says at each whether
// it may be.
func (w *Watch) Judge(r Rules) Verdict {
	w.mu.Lock()
	events := slices.Clone(w.events)
	j := &judge{Rules: r, others: maps.Clone(w.others), nodes: map[string]Node{}, pods: map[string]Pod{}, budgets: map[string]Budget{}, closed: map[types.UID]bool{}}
	w.mu.Unlock()
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.revision, b.revision) })
	j.events = events
	for i, e := range events {
		j.at = i
		switch {
		case e.node != nil:
			j.node(e, *e.node)
		case e.pod != nil:
			j.pod(e, *e.pod)
		case e.budget != nil:
			j.budget(e, *e.budget)
		}
	}
	j.Events = len(events)
	j.end()
	return j.Verdict
}

// node judges a change of a node.
func (j *judge) node(e event, n Node) {
	old, known := j.nodes[n.Name]
	known = known && old.UID == n.UID
	if !j.Ours[n.Name] && !j.Strangers[n.Name] {
		return
	}
	if e.gone {
		delete(j.nodes, n.Name)
		if j.Strangers[n.Name] {
			j.add(&j.ForeignRemoved, e, "node %s, which is not ours, was deleted", n.Name)
		}
		return
	}
	j.nodes[n.Name] = n
	switch {
	case !known && n.Mark == "":
		// Registered, or there before: nobody has touched it yet.
		j.closed[n.UID] = n.Closed
	case j.others[e.revision]:
		j.closed[n.UID] = n.Closed
	case n.Closed != old.Closed || n.Mark != old.Mark:
		j.touched(e, old, n)
	}
	if n.Mark != "" && n.Owner() != old.Owner() {
		j.cordons(e, n)
	}
}

// touched judges what we did to a node.
func (j *judge) touched(e event, old, n Node) {
	want := j.closed[n.UID]
	switch {
	case j.Strangers[n.Name]:
		j.add(&j.ForeignRemoved, e, "node %s, which is not ours, was touched: closed %t, mark %q", n.Name, n.Closed, n.Mark)
	case want && !n.Closed:
		j.add(&j.ForeignRemoved, e, "node %s was opened, which somebody else had cordoned; it bore the mark of %q", n.Name, old.Owner())
	case n.Mark == "" && n.Closed && !want:
		j.add(&j.Leaked, e, "node %s is closed without a mark; it bore that of %q", n.Name, old.Owner())
	}
}

// cordons counts the nodes that are cordoned by us now that one more is.
func (j *judge) cordons(e event, n Node) {
	all, byOperation := 0, 0
	operation, _, _ := strings.Cut(n.Owner(), "/")
	for _, other := range j.nodes {
		if other.Mark == "" {
			continue
		}
		all++
		if id, _, _ := strings.Cut(other.Owner(), "/"); id == operation {
			byOperation++
		}
	}
	j.Most = max(j.Most, all)
	if most, limited := j.Operations[operation]; limited && byOperation > most {
		j.add(&j.OverBudget, e, "%d nodes are cordoned for operation %s, which may have %d; the last is %s", byOperation, operation, most, n.Name)
	}
	for _, m := range j.Managers {
		if !m.Nodes[n.Name] {
			continue
		}
		count := 0
		for name := range m.Nodes {
			if j.nodes[name].Mark != "" {
				count++
			}
		}
		if count > m.Most {
			j.add(&j.OverBudget, e, "%d nodes of container manager %s are cordoned, %d may be; the last is %s for %s", count, m.Name, m.Most, n.Name, n.Owner())
		}
	}
}

// pod judges a change of a pod. One that stops being healthy is one that we took away
// when it was evicted, when its node goes down with it, and for whatever reason on a
// node that we have cordoned. The node controller calls pods of lost nodes not ready, as
// after an apiserver was away for long; that is nobody's doing.
func (j *judge) pod(e event, p Pod) {
	k := key(p.Namespace, p.Name)
	old, known := j.pods[k]
	if e.gone {
		delete(j.pods, k)
	} else {
		j.pods[k] = p
	}
	if !j.Ours[p.Node] {
		return
	}
	if p.Evicted && p.Ending && (!known || !old.Ending) {
		j.Evicted++
	}
	n, there := j.nodes[p.Node]
	down := there && !e.gone && !p.Ending
	taken := p.Evicted || (down || n.Mark != "") && !n.Lost
	if !known || !old.Healthy() || !e.gone && p.Healthy() || !taken {
		return
	}
	for _, b := range j.budgets {
		if !b.covers(p) {
			continue
		}
		healthy := int32(0)
		for _, other := range j.pods {
			if other.Healthy() && b.covers(other) {
				healthy++
			}
		}
		if healthy < b.Wants {
			how := "with its node"
			if p.Evicted {
				how = "by an eviction"
			}
			j.add(&j.OverBudget, e, "pod %s went %s, and budget %s/%s has %d healthy pods of the %d that it wants%s", k, how, b.Namespace, b.Name, healthy, b.Wants, j.before(b))
		}
	}
}

// before tells what the record has of a budget, its pods and their nodes in the time
// before what is judged, the latest first.
func (j *judge) before(b Budget) string {
	const most, since = 40, 20 * time.Second
	on := map[string]bool{}
	for _, p := range j.pods {
		if b.covers(p) {
			on[p.Node] = true
		}
	}
	var told strings.Builder
	for i, lines := j.at, 0; i >= 0 && lines < most && j.events[j.at].at.Sub(j.events[i].at) < since; i-- {
		e := j.events[i]
		what := ""
		switch {
		case e.pod != nil && b.covers(*e.pod):
			p := e.pod
			what = fmt.Sprintf("pod %s on %s: running %t, ready %t, ending %t, evicted %t", p.Name, p.Node, p.Running, p.Ready, p.Ending, p.Evicted)
		case e.budget != nil && e.budget.Namespace == b.Namespace && e.budget.Name == b.Name:
			what = fmt.Sprintf("budget %s: wants %d, allows %d", b.Name, e.budget.Wants, e.budget.Allowed)
		case e.node != nil && on[e.node.Name]:
			n := e.node
			what = fmt.Sprintf("node %s: closed %t, mark %q, boot %s, lost %t", n.Name, n.Closed, n.Mark, n.BootID, n.Lost)
		default:
			continue
		}
		if e.gone {
			what += ", gone"
		}
		lines++
		fmt.Fprintf(&told, "\n            %s (revision %d) %s", e.at.Format("15:04:05.000"), e.revision, what)
	}
	return told.String()
}

func (j *judge) budget(e event, b Budget) {
	if e.gone {
		delete(j.budgets, key(b.Namespace, b.Name))
		return
	}
	j.budgets[key(b.Namespace, b.Name)] = b
}

// end wants nothing of ours left.
func (j *judge) end() {
	for _, n := range j.nodes {
		switch {
		case n.Mark != "":
			j.Leaked++
			j.Notes = append(j.Notes, fmt.Sprintf("node %s still bears the mark of %s", n.Name, n.Owner()))
		case n.Closed && !j.closed[n.UID]:
			j.Leaked++
			j.Notes = append(j.Notes, fmt.Sprintf("node %s is still closed", n.Name))
		}
	}
}
