package kubetest

import (
	"context"
	"fmt"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// accountsNamespace holds all accounts.
const accountsNamespace = "kube-system"

// Account is a service account.
type Account struct {
	c    *Cluster
	name string
}

// AddAccount makes a service account that may do what the rules say, in the
// whole cluster, and returns when the apiserver has learned so.
func (c *Cluster) AddAccount(ctx context.Context, name string, rules ...rbacv1.PolicyRule) (*Account, error) {
	a := &Account{c: c, name: name}
	if err := a.create(ctx); err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{Name: "kubetest:" + name}
	rbac := c.admin.RbacV1()
	if _, err := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	if _, err := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: accountsNamespace, Name: name}},
	}, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	for _, rule := range rules {
		if err := until(ctx, c.alive, func(ctx context.Context) error { return a.may(ctx, rule) }); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Token gives a fresh token, good for an hour.
func (a *Account) Token(ctx context.Context) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))}}
	answer, err := a.accounts().CreateToken(ctx, a.name, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}

// Expire ends token, and every other of the account: the apiserver answers 401 by
// the time it returns. The least life that can be asked for a token is ten
// minutes, so the account is replaced instead, which makes the same refusal. The
// apiserver remembers good tokens for 10 s; with one just used it takes that long.
func (a *Account) Expire(ctx context.Context, token string) error {
	if err := a.accounts().Delete(ctx, a.name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	if err := a.create(ctx); err != nil {
		return err
	}
	return until(ctx, a.c.alive, func(ctx context.Context) error {
		review, err := a.c.admin.AuthenticationV1().TokenReviews().Create(ctx,
			&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		if err == nil && review.Status.Authenticated {
			err = fmt.Errorf("a token of account %s is still good", a.name)
		}
		return err
	})
}

func (a *Account) accounts() typedcorev1.ServiceAccountInterface {
	return a.c.admin.CoreV1().ServiceAccounts(accountsNamespace)
}

func (a *Account) create(ctx context.Context) error {
	_, err := a.accounts().Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: a.name}}, metav1.CreateOptions{})
	return err
}

// may asks the authorizer, which learns of roles by watching them, for the first
// verb and resource of a rule.
func (a *Account) may(ctx context.Context, rule rbacv1.PolicyRule) error {
	resource, subresource, _ := strings.Cut(rule.Resources[0], "/")
	review, err := a.c.admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + accountsNamespace + ":" + a.name,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: rule.Verbs[0], Group: rule.APIGroups[0], Resource: resource, Subresource: subresource,
			},
		},
	}, metav1.CreateOptions{})
	if err == nil && !review.Status.Allowed {
		err = fmt.Errorf("account %s may not yet %s %s", a.name, rule.Verbs[0], rule.Resources[0])
	}
	return err
}
