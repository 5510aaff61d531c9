package nodes

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"commissaire/internal/kubetest"
)

// App is a replica set whose pods the scheduler places on nodes with these labels, and
// its disruption budget.
type App struct {
	Namespace, Name string
	Replicas        int32
	Nodes           map[string]string
	// MinAvailable or MaxUnavailable is that of the budget; without both there is none.
	MinAvailable, MaxUnavailable string
}

// appsReady is how long applications may take to run: the machine may be busy.
const appsReady = 2 * time.Minute

// Run makes the applications, in a namespace that is there, and returns when all their
// pods are ready and the budgets have counted them.
func Run(ctx context.Context, kube *kubetest.Cluster, apps ...App) error {
	for _, a := range apps {
		if _, err := kube.Admin().AppsV1().ReplicaSets(a.Namespace).Create(ctx, a.replicaSet(), metav1.CreateOptions{}); err != nil {
			return err
		}
		if b := a.budget(); b != nil {
			if _, err := kube.Admin().PolicyV1().PodDisruptionBudgets(a.Namespace).Create(ctx, b, metav1.CreateOptions{}); err != nil {
				return err
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, appsReady)
	defer cancel()
	for _, a := range apps {
		if err := a.await(ctx, kube); err != nil {
			return err
		}
	}
	return nil
}

func (a App) labels() map[string]string { return map[string]string{"app": a.Name} }

func (a App) replicaSet() *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.Namespace, Name: a.Name},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: new(a.Replicas),
			Selector: &metav1.LabelSelector{MatchLabels: a.labels()},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: a.labels()},
				Spec: corev1.PodSpec{
					NodeSelector:                  a.Nodes,
					TerminationGracePeriodSeconds: new(int64(1)),
					Containers:                    []corev1.Container{{Name: "main", Image: "none.invalid/none"}},
					TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
						MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
						LabelSelector: &metav1.LabelSelector{MatchLabels: a.labels()},
					}},
				},
			},
		},
	}
}

func (a App) budget() *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.Namespace, Name: a.Name},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: a.labels()}},
	}
	switch {
	case a.MinAvailable != "":
		b.Spec.MinAvailable = new(intstr.Parse(a.MinAvailable))
	case a.MaxUnavailable != "":
		b.Spec.MaxUnavailable = new(intstr.Parse(a.MaxUnavailable))
	default:
		return nil
	}
	return b
}

// await asks until the application is as it should be.
func (a App) await(ctx context.Context, kube *kubetest.Cluster) error {
	const again = 100 * time.Millisecond
	for {
		lacks, err := a.lacks(ctx, kube)
		if err != nil || lacks == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("application %s/%s: %s", a.Namespace, a.Name, lacks)
		case <-time.After(again):
		}
	}
}

func (a App) lacks(ctx context.Context, kube *kubetest.Cluster) (string, error) {
	set, err := kube.Admin().AppsV1().ReplicaSets(a.Namespace).Get(ctx, a.Name, metav1.GetOptions{})
	if err != nil || set.Status.ReadyReplicas < a.Replicas {
		return fmt.Sprintf("%d of %d pods are ready", set.Status.ReadyReplicas, a.Replicas), err
	}
	if a.budget() == nil {
		return "", nil
	}
	b, err := kube.Admin().PolicyV1().PodDisruptionBudgets(a.Namespace).Get(ctx, a.Name, metav1.GetOptions{})
	if err != nil || b.Status.ObservedGeneration < b.Generation || b.Status.CurrentHealthy < a.Replicas {
		return fmt.Sprintf("its budget counts %d pods", b.Status.CurrentHealthy), err
	}
	return "", nil
}
