package containermgr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/version"

	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
)

// readyInterval is how often Ready looks.
const readyInterval = time.Second

var errNotKubernetes = errors.New("the answer is not that of a Kubernetes API")

// Check asks for the version, then for each right of Rules.
func (k *Kubernetes) Check(ctx context.Context) error {
	if err := k.do(ctx, "ask for the version", k.askVersion); err != nil {
		return err
	}
	var lacks []string
	for _, rule := range Rules() {
		for _, verb := range rule.Verbs {
			var allowed bool
			err := k.do(ctx, "ask for our rights", func(ctx context.Context) (err error) {
				allowed, err = k.may(ctx, verb, rule)
				return err
			})
			if err != nil {
				return err
			}
			if !allowed {
				lacks = append(lacks, verb+" "+rule.Resources[0])
			}
		}
	}
	if len(lacks) > 0 {
		return fleet.InvalidField(options.Field(k.blamed.login), "belongs to an account that lacks rights on %s; grant it in a ClusterRole: %s", k, strings.Join(lacks, ", "))
	}
	return nil
}

// askVersion goes without the discovery client's own method, which has no deadline.
func (k *Kubernetes) askVersion(ctx context.Context) error {
	answer := k.client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx)
	if err := answer.Error(); err != nil {
		return err
	}
	raw, err := answer.Raw()
	if err != nil {
		return err
	}
	var v version.Info
	if err := json.Unmarshal(raw, &v); err != nil || v.GitVersion == "" {
		return errNotKubernetes
	}
	return nil
}

func (k *Kubernetes) may(ctx context.Context, verb string, rule rbacv1.PolicyRule) (bool, error) {
	resource, subresource, _ := strings.Cut(rule.Resources[0], "/")
	review, err := k.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Group: rule.APIGroups[0], Resource: resource, Subresource: subresource,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

// Register makes the node's object; the kubelet of the host, once it comes, takes
// it over.
func (k *Kubernetes) Register(ctx context.Context, node string) error {
	if err := checkName(node); err != nil {
		return err
	}
	return k.do(ctx, "register node "+node, func(ctx context.Context) error {
		_, err := k.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{FieldManager: fieldManager})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

// removeSkew is how far the clocks of a manager and of whoever says since may be apart:
// a node of ours may have been made just before its host was removed.
const removeSkew = time.Minute

// Remove deletes the node's object. One with finalizers goes when those do. It is deleted
// as it was read: a node of that name that somebody makes in between is another.
func (k *Kubernetes) Remove(ctx context.Context, node string, since time.Time) (left bool, err error) {
	if checkName(node) != nil {
		return false, nil // no node can have it, and an empty one would mean the collection
	}
	n, err := k.node(ctx, node)
	switch {
	case fleet.KindOf(err) == fleet.NotFound:
		return false, nil
	case err != nil:
		return false, err
	case n.CreationTimestamp.After(since.Add(removeSkew)):
		return true, nil
	}
	err = k.do(ctx, "remove node "+node, func(ctx context.Context) error {
		return k.client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &n.UID}})
	})
	switch fleet.KindOf(err) {
	case fleet.NotFound:
		return false, nil
	case fleet.Conflict:
		return true, nil
	}
	return false, err
}

// Registered says whether the node's object is there.
func (k *Kubernetes) Registered(ctx context.Context, node string) (bool, error) {
	switch _, err := k.node(ctx, node); {
	case err == nil:
		return true, nil
	case fleet.KindOf(err) == fleet.NotFound:
		return false, nil
	default:
		return false, err
	}
}

// Status gives the node as the server sent it, also what this version's types do
// not know.
func (k *Kubernetes) Status(ctx context.Context, node string) (json.RawMessage, error) {
	if checkName(node) != nil {
		return nil, nowhere(node)
	}
	var raw []byte
	err := k.do(ctx, "get node "+node, func(ctx context.Context) (err error) {
		answer := k.client.CoreV1().RESTClient().Get().Resource("nodes").Name(node).SetHeader("Accept", "application/json").Do(ctx)
		// Raw's own error lacks what the server said.
		if err := answer.Error(); err != nil {
			return err
		}
		if raw, err = answer.Raw(); err != nil {
			return err
		}
		var meta metav1.TypeMeta
		if json.Unmarshal(raw, &meta) != nil || meta.Kind != "Node" {
			return errNotKubernetes
		}
		return nil
	})
	return raw, err
}

// Ready looks every second; what may pass is waited out. When ctx ends, NotReady
// says what the node lacked last.
func (k *Kubernetes) Ready(ctx context.Context, node string, w Wait) error {
	if err := checkName(node); err != nil {
		return err
	}
	last := fmt.Errorf("%s has not answered", k)
	for {
		n, err := k.node(ctx, node)
		switch {
		case err == nil:
			lack := lacking(n, w)
			if lack == "" {
				return nil
			}
			last = fmt.Errorf("node %s %s", node, lack)
		case fleet.KindOf(err) == fleet.Invalid:
			return err
		case ctx.Err() == nil:
			last = err
		}
		if w.Lacks != nil && ctx.Err() == nil {
			w.Lacks(last)
		}
		select {
		case <-ctx.Done():
			return &fleet.Error{Kind: fleet.NotReady, Detail: fmt.Sprintf("node %s was not ready in time: %v", node, last), Err: ctx.Err()}
		case <-time.After(readyInterval):
		}
	}
}

// lacking says what the node lacks to be ready, "" when nothing.
func lacking(n *corev1.Node, w Wait) string {
	if got := n.Status.NodeInfo.BootID; w.Left != "" && (got == w.Left || got == "") {
		return "has not reported since its host booted"
	}
	if c := readiness(n); c == nil {
		return "has never reported; does its kubelet run?"
	} else if c.Status != corev1.ConditionTrue {
		return fmt.Sprintf("is not Ready (%s): %s", c.Reason, quote(c.Message))
	}
	return ""
}

// readiness is the condition Ready of a node, nil when it has none.
func readiness(n *corev1.Node) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == corev1.NodeReady {
			return c
		}
	}
	return nil
}

// node gets a node; NotFound when it is not there.
func (k *Kubernetes) node(ctx context.Context, name string) (n *corev1.Node, err error) {
	if checkName(name) != nil {
		return nil, nowhere(name)
	}
	err = k.do(ctx, "get node "+name, func(ctx context.Context) (err error) {
		n, err = k.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil && n.Name != name {
			err = errNotKubernetes // any JSON object makes a node without a name
		}
		return err
	})
	if err != nil {
		return nil, err // client-go gives an empty node beside an error
	}
	return n, nil
}

// checkName keeps what cannot be the name of a node, such as an IPv6 address, from
// becoming a part of a path.
func checkName(node string) error {
	if why := validation.IsDNS1123Subdomain(node); len(why) > 0 {
		return fleet.InvalidField("address", "cannot be the name of a Kubernetes node, which consists of small letters, digits, '-' and '.'")
	}
	return nil
}

// nowhere is for whoever asks for a node and does not make one.
func nowhere(name string) error {
	return fleet.Errorf(fleet.NotFound, "node %q is not there, and cannot be: the name of a node of Kubernetes consists of small letters, digits, '-' and '.'", name)
}
