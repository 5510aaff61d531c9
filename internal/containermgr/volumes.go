package containermgr

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"commissaire/internal/fleet"
)

// localVolumes gives the persistent volumes that pods use and that cannot be
// mounted elsewhere, by "namespace/claim".
func (k *Kubernetes) localVolumes(ctx context.Context, pods []corev1.Pod) (map[string]string, error) {
	used := map[string]bool{}
	var namespaces []string
	for i := range pods {
		for _, claim := range claimsOf(&pods[i]) {
			used[claim] = true
			namespaces = append(namespaces, pods[i].Namespace)
		}
	}
	local := map[string]string{}
	for _, namespace := range slices.Compact(namespaces) { // sorted as the pods are
		claims, err := k.claimsIn(ctx, namespace)
		if err != nil {
			return nil, err
		}
		for i := range claims {
			name, volume := namespace+"/"+claims[i].Name, claims[i].Spec.VolumeName
			if !used[name] || volume == "" {
				continue
			}
			switch is, err := k.isLocal(ctx, volume); {
			case err != nil:
				return nil, err
			case is:
				local[name] = volume
			}
		}
	}
	return local, nil
}

// allLocalVolumes does so for claims of any namespaces, and asks no more when they are
// many.
func (k *Kubernetes) allLocalVolumes(ctx context.Context, claims []string) (map[string]string, error) {
	local := map[string]string{}
	if len(claims) == 0 {
		return local, nil
	}
	var all metav1.ListOptions
	isLocal := map[string]bool{}
	if err := pages(ctx, k, "list the volumes", all, k.client.CoreV1().PersistentVolumes().List, func(page *corev1.PersistentVolumeList) {
		for i := range page.Items {
			isLocal[page.Items[i].Name] = pinned(&page.Items[i])
		}
	}); err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, claim := range claims {
		used[claim] = true
	}
	err := pages(ctx, k, "list the volume claims", all, k.client.CoreV1().PersistentVolumeClaims(metav1.NamespaceAll).List, func(page *corev1.PersistentVolumeClaimList) {
		for i := range page.Items {
			c := &page.Items[i]
			if name := c.Namespace + "/" + c.Name; used[name] && isLocal[c.Spec.VolumeName] {
				local[name] = c.Spec.VolumeName
			}
		}
	})
	return local, err
}

func (k *Kubernetes) claimsIn(ctx context.Context, namespace string) (claims []corev1.PersistentVolumeClaim, err error) {
	list := k.client.CoreV1().PersistentVolumeClaims(namespace).List
	err = pages(ctx, k, "list the volume claims of namespace "+namespace, metav1.ListOptions{}, list, func(page *corev1.PersistentVolumeClaimList) {
		claims = append(claims, page.Items...)
	})
	return claims, err
}

// isLocal says whether a persistent volume is a part of one node. One that is gone
// is not.
func (k *Kubernetes) isLocal(ctx context.Context, volume string) (is bool, err error) {
	err = k.do(ctx, "get the volume "+volume, func(ctx context.Context) error {
		v, err := k.client.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
		is = err == nil && pinned(v)
		return err
	})
	if fleet.KindOf(err) == fleet.NotFound {
		return false, nil
	}
	return is, err
}

// pinned: a folder or a disk of a node, or whatever must be on a node of a certain
// name, as drivers of local storage say.
func pinned(v *corev1.PersistentVolume) bool {
	if v.Spec.Local != nil || v.Spec.HostPath != nil {
		return true
	}
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return false
	}
	return slices.ContainsFunc(v.Spec.NodeAffinity.Required.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
		return slices.ContainsFunc(t.MatchExpressions, func(r corev1.NodeSelectorRequirement) bool {
			return r.Key == corev1.LabelHostname && r.Operator == corev1.NodeSelectorOpIn
		})
	})
}

// claimsOf gives the claims of a pod, "namespace/claim".
func claimsOf(pod *corev1.Pod) (claims []string) {
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			claims = append(claims, pod.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil: // named so by Kubernetes
			claims = append(claims, pod.Namespace+"/"+pod.Name+"-"+v.Name)
		}
	}
	return claims
}

func diagnoseVolumes(pod *corev1.Pod, local map[string]string) (findings []fleet.Finding) {
	for _, claim := range claimsOf(pod) {
		if volume, ok := local[claim]; ok {
			findings = append(findings, fleet.Finding{
				Cause: LocalVolume, Object: podObject(pod), Pods: []string{podName(pod)},
				Detail: "uses the volume " + volume + ", which only this node has: it will not run anywhere until the node is back",
			})
		}
	}
	return findings
}
