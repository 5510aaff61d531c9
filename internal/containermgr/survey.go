package containermgr

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"commissaire/internal/fleet"
)

const (
	// pageSize keeps an answer below maxAnswer, at 16 KB for each object; where they are
	// larger, pages become smaller.
	pageSize = 250
	// surveyFrom is how many nodes are a reason to read the whole cluster.
	surveyFrom = 60
	// diagnoseAtOnce is how many nodes are read at the same time.
	diagnoseAtOnce = 8
)

// DiagnoseMany reads node by node when they are few. Otherwise it reads the whole cluster
// once, a page at a time, and keeps what concerns the nodes.
func (k *Kubernetes) DiagnoseMany(ctx context.Context, nodes []string, p fleet.Drain) (map[string][]fleet.Finding, error) {
	if _, err := skipped(p); err != nil {
		return nil, err
	}
	if len(nodes) < surveyFrom {
		return k.diagnoseEach(ctx, nodes, p)
	}
	found := make(map[string][]fleet.Finding, len(nodes))
	v, err := k.survey(ctx, nodes)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if found[node], err = Diagnose(v.of(node), node, "", p); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// diagnoseEach ends with the first error.
func (k *Kubernetes) diagnoseEach(ctx context.Context, nodes []string, p fleet.Drain) (map[string][]fleet.Finding, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		mu    sync.Mutex
		all   sync.WaitGroup
		first error
	)
	found := make(map[string][]fleet.Finding, len(nodes))
	turns := make(chan struct{}, diagnoseAtOnce)
	for _, node := range nodes {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			findings, err := k.Diagnose(ctx, node, "", p, false)
			mu.Lock()
			defer mu.Unlock()
			if found[node] = findings; err != nil && first == nil {
				first = err
				cancel()
			}
		})
	}
	all.Wait()
	return found, first
}

// survey is what a cluster has that concerns some of its nodes.
type survey struct {
	nodes   map[string]*corev1.Node
	pods    map[string][]corev1.Pod // by node
	budgets map[string][]policyv1.PodDisruptionBudget
	local   map[string]string // as in Snapshot
	at      time.Time
}

func (k *Kubernetes) survey(ctx context.Context, nodes []string) (*survey, error) {
	v := &survey{nodes: map[string]*corev1.Node{}, pods: map[string][]corev1.Pod{}, budgets: map[string][]policyv1.PodDisruptionBudget{}, at: time.Now()}
	wanted := map[string]bool{}
	for _, node := range nodes {
		wanted[node] = true
	}
	var all metav1.ListOptions
	if err := pages(ctx, k, "list the nodes", all, k.client.CoreV1().Nodes().List, func(page *corev1.NodeList) {
		for i := range page.Items {
			if n := &page.Items[i]; wanted[n.Name] {
				n.Status.Images = nil
				v.nodes[n.Name] = n
			}
		}
	}); err != nil {
		return nil, err
	}
	var claims []string
	if err := pages(ctx, k, "list the pods", all, k.client.CoreV1().Pods(metav1.NamespaceAll).List, func(page *corev1.PodList) {
		for i := range page.Items {
			if pod := &page.Items[i]; wanted[pod.Spec.NodeName] {
				v.pods[pod.Spec.NodeName] = append(v.pods[pod.Spec.NodeName], lean(pod))
				claims = append(claims, claimsOf(pod)...)
			}
		}
	}); err != nil {
		return nil, err
	}
	for _, pods := range v.pods {
		sortPods(pods)
	}
	if err := pages(ctx, k, "list the disruption budgets", all, k.client.PolicyV1().PodDisruptionBudgets(metav1.NamespaceAll).List, func(page *policyv1.PodDisruptionBudgetList) {
		for _, b := range page.Items {
			v.budgets[b.Namespace] = append(v.budgets[b.Namespace], b)
		}
	}); err != nil {
		return nil, err
	}
	var err error
	v.local, err = k.allLocalVolumes(ctx, claims)
	return v, err
}

// of is what concerns one node.
func (v *survey) of(node string) Snapshot {
	s := Snapshot{Node: v.nodes[node], Pods: v.pods[node], Local: v.local, At: v.at}
	for _, namespace := range namespacesOf(s.Pods) {
		s.Budgets = append(s.Budgets, v.budgets[namespace]...)
	}
	return s
}

// lean leaves out what no diagnosis looks at and most of a pod is: 500 nodes may have
// 50 000 of them.
func lean(pod *corev1.Pod) corev1.Pod {
	l := *pod
	l.ManagedFields = nil
	l.Spec.InitContainers, l.Spec.Containers, l.Spec.EphemeralContainers = nil, nil, nil
	l.Status.InitContainerStatuses, l.Status.ContainerStatuses, l.Status.EphemeralContainerStatuses = nil, nil, nil
	return l
}

// sortPods puts them in the order of their names.
func sortPods(pods []corev1.Pod) {
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(podName(&a), podName(&b)) })
}

// namespacesOf gives those of sorted pods, each once.
func namespacesOf(pods []corev1.Pod) (namespaces []string) {
	for i := range pods {
		namespaces = append(namespaces, pods[i].Namespace)
	}
	return slices.Compact(namespaces)
}

// pages hands every page of a list to take. A page that is too large to be read is asked
// for again as smaller ones. what is in the words of "could not …".
func pages[L metav1.ListInterface](ctx context.Context, k *Kubernetes, what string, o metav1.ListOptions, list func(context.Context, metav1.ListOptions) (L, error), take func(page L)) error {
	o.Limit = pageSize
	for {
		var page L
		err := k.do(ctx, what, func(ctx context.Context) (err error) {
			page, err = list(ctx, o)
			return err
		})
		switch {
		case errors.Is(err, errTooLarge) && o.Limit > 1:
			o.Limit = max(o.Limit/4, 1)
			continue
		case err != nil:
			return err
		}
		take(page)
		if o.Continue = page.GetContinue(); o.Continue == "" {
			return nil
		}
	}
}
