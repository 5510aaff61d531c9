package containermgr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"commissaire/internal/fleet"
)

// CordonAnnotation is the mark on a node that we have cordoned: who did, when, and
// whether the node was cordoned already. Its value is a Cordon in JSON.
const CordonAnnotation = "commissaire/cordon"

// conflictTries is how often a write is tried over when the node was changed
// meanwhile; a kubelet writes its status now and then.
const conflictTries = 10

// Cordon is the mark of an owner on a node.
type Cordon struct {
	// Owner is whom the cordon is for, such as the id of an operation.
	Owner string `json:"owner"`
	// Prior says whether somebody had cordoned the node before, whose cordon stays.
	Prior bool      `json:"prior"`
	Since time.Time `json:"since"`
}

// Restored says what a Restore found to do.
type Restored string

// What a Restore may find.
const (
	// Uncordoned: the node takes pods again, as before.
	Uncordoned Restored = "uncordoned"
	// KeptCordoned: our mark is gone; the node stays cordoned, since somebody else
	// had cordoned it before us, or has since.
	KeptCordoned Restored = "kept_cordoned"
	// NothingToRestore: the node bears no mark of this owner, or is gone.
	NothingToRestore Restored = "nothing"
)

// Cordon sets the mark and closes the node, in one write that fails when the node
// has changed since it was read. A node that somebody else has cordoned is marked
// so and else left alone. Repeated, it gives the mark that is there, and closes the
// node again if somebody has opened it: pods would come back under a drain.
// Conflict: the node bears the mark of another owner (Held).
//
// stands is asked after the node has been read and before it is written; its error
// ends the matter. Whoever sleeps in between meets a node that Restore has changed,
// reads it again, and is told so by stands.
func (k *Kubernetes) Cordon(ctx context.Context, node, owner string, stands func(context.Context) error) (Cordon, error) {
	var mark Cordon
	err := k.edit(ctx, node, "cordon node "+node, func(n *corev1.Node) (map[string]any, error) {
		if err := stands(ctx); err != nil {
			return nil, err
		}
		held, err := markOf(n)
		if err != nil {
			return nil, err
		}
		switch {
		case held == nil:
			mark = Cordon{Owner: owner, Prior: n.Spec.Unschedulable, Since: now()}
		case held.Owner != owner:
			return nil, heldByOther(node, held)
		case n.Spec.Unschedulable:
			mark = *held
			return nil, nil
		default:
			// Somebody has opened it, so open is what to go back to.
			mark = *held
			mark.Prior = false
		}
		return cordonPatch(&mark, true)
	})
	return mark, err
}

// Restore takes the owner's mark away and opens the node, in one write, if it was
// open before and nobody else has closed it since. A mark of another owner stays; a
// node that is gone is no error.
//
// A node without a mark gets the owner's, which is then taken away again: two writes
// that change nothing but the node's version. A Cordon of this owner may still be on
// its way, from a process that slept or over a slow network. It was read before its
// owner's turn ended, is to be written to the node as it was read, and so fails.
func (k *Kubernetes) Restore(ctx context.Context, node, owner string) (Restored, error) {
	did, bare, err := k.restore(ctx, node, owner)
	if !bare {
		return did, err
	}
	bare, err = k.mark(ctx, node, owner)
	if err != nil {
		return NothingToRestore, err
	}
	if did, _, err = k.restore(ctx, node, owner); bare {
		did = NothingToRestore
	}
	return did, err
}

// restore does so for a node that bears a mark, and says of one that bears none that
// it is bare.
func (k *Kubernetes) restore(ctx context.Context, node, owner string) (did Restored, bare bool, err error) {
	err = k.edit(ctx, node, "restore node "+node, func(n *corev1.Node) (map[string]any, error) {
		did, bare = NothingToRestore, false
		held, err := markOf(n)
		if err != nil {
			return nil, err
		}
		if bare = held == nil; bare || held.Owner != owner {
			return nil, nil
		}
		closed := n.Spec.Unschedulable && (held.Prior || closedByOther(n))
		did = Uncordoned
		if closed {
			did = KeptCordoned
		}
		return cordonPatch(nil, closed)
	})
	if fleet.KindOf(err) == fleet.NotFound {
		return NothingToRestore, false, nil
	}
	return did, bare, err
}

// mark sets the owner's mark on a node that bears none, and leaves it open or closed
// as it is. It says whether it had to.
func (k *Kubernetes) mark(ctx context.Context, node, owner string) (set bool, err error) {
	err = k.edit(ctx, node, "mark node "+node, func(n *corev1.Node) (map[string]any, error) {
		set = false
		if held, err := markOf(n); err != nil || held != nil {
			return nil, err
		}
		set = true
		patch, err := cordonPatch(&Cordon{Owner: owner, Prior: n.Spec.Unschedulable, Since: now()}, false)
		delete(patch, "spec")
		return patch, err
	})
	if fleet.KindOf(err) == fleet.NotFound {
		return false, nil
	}
	return set, err
}

// edit reads the node and merges what change gives, nil for nothing, unless the
// node has changed in between; then it begins anew.
func (k *Kubernetes) edit(ctx context.Context, node, what string, change func(*corev1.Node) (map[string]any, error)) error {
	var err error
	for range conflictTries {
		n, getErr := k.node(ctx, node)
		if getErr != nil {
			return getErr
		}
		patch, changeErr := change(n)
		if changeErr != nil || patch == nil {
			return changeErr
		}
		patch["metadata"].(map[string]any)["resourceVersion"] = n.ResourceVersion
		body, jsonErr := json.Marshal(patch)
		if jsonErr != nil {
			return jsonErr
		}
		err = k.do(ctx, what, func(ctx context.Context) error {
			_, err := k.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, body, metav1.PatchOptions{FieldManager: fieldManager})
			return err
		})
		if fleet.KindOf(err) != fleet.Conflict {
			return err
		}
	}
	return &fleet.Error{Kind: fleet.Unavailable, Detail: fmt.Sprintf("could not %s: others change it all the time", what), Err: err}
}

// now is fit for a mark.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// cordonPatch is a merge patch: nil takes away.
func cordonPatch(mark *Cordon, closed bool) (map[string]any, error) {
	var value any
	if mark != nil {
		b, err := json.Marshal(mark)
		if err != nil {
			return nil, err
		}
		value = string(b)
	}
	var unschedulable any
	if closed {
		unschedulable = true
	}
	return map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{CordonAnnotation: value}},
		"spec":     map[string]any{"unschedulable": unschedulable},
	}, nil
}

// markOf reads the mark, nil when there is none. One that cannot be read is
// somebody's, and not to be guessed at.
func markOf(n *corev1.Node) (*Cordon, error) {
	text, ok := n.Annotations[CordonAnnotation]
	if !ok {
		return nil, nil
	}
	var mark Cordon
	if err := json.Unmarshal([]byte(text), &mark); err != nil || mark.Owner == "" {
		return nil, fleet.Errorf(fleet.Conflict, "node %s has an annotation %s that is not ours to read; remove it if nothing works on the node", n.Name, CordonAnnotation)
	}
	return &mark, nil
}

// heldError is the cause of a Conflict over the mark of another owner.
type heldError struct{ owner string }

func (e *heldError) Error() string { return "the node is held for " + e.owner }

// Held says that a node bears the mark of another owner, who may let it go.
func Held(err error) bool {
	var held *heldError
	return errors.As(err, &held)
}

func heldByOther(node string, held *Cordon) error {
	return &fleet.Error{
		Kind:   fleet.Conflict,
		Detail: fmt.Sprintf("node %s has been cordoned for %s since %s; wait for its end, or remove the annotation %s if that is long gone", node, held.Owner, held.Since.Format(time.RFC3339), CordonAnnotation),
		Err:    &heldError{held.Owner},
	}
}

// closedByOther says whether somebody has opened the node and closed it again
// under our mark: the server notes who changed a field last. A second cordon of a
// closed node changes nothing and leaves no trace.
func closedByOther(n *corev1.Node) bool {
	ours, others := false, false
	for _, entry := range n.ManagedFields {
		if entry.FieldsV1 == nil || !bytes.Contains(entry.FieldsV1.Raw, []byte(`"f:unschedulable"`)) {
			continue
		}
		if entry.Manager == fieldManager {
			ours = true
		} else {
			others = true
		}
	}
	return others && !ours
}
