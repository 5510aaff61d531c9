package authn

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/authn/authntest"
)

func TestKubernetesNames(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		plugin string
		path   string   // behind the URL of the server
		absent []string // paths that the server is too old for
		want   string
	}{
		"the server tells":            {"kubeauth", "", nil, "system:serviceaccount:ci:robot"},
		"too old a server":            {"kubeauth", "", []string{selfSubjectReview}, "kubernetes:d30391c0dee3"},
		"OpenShift tells":             {"openshiftbearertokenauth", "", nil, "system:serviceaccount:ci:robot"},
		"OpenShift tells its own way": {"openshiftbearertokenauth", "/", []string{selfSubjectReview}, "system:serviceaccount:ci:robot"},
		"OpenShift with an endpoint":  {"openshiftbearertokenauth", "/api/v1/namespaces", nil, "system:serviceaccount:ci:robot"},
		"too old for OpenShift, too":  {"openshiftbearertokenauth", "/version", []string{selfSubjectReview, thisUser}, "openshift:d30391c0dee3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := authntest.NewKubernetes(t)
			k.AddToken("robots-token", "system:serviceaccount:ci:robot", true, time.Now().Add(time.Hour))
			for _, path := range test.absent {
				k.Without(path)
			}
			who, err := build(t, test.plugin, nil, map[string]any{"url": k.URL + test.path}).Authenticate(t.Context(), withBearer("robots-token")(t))
			require.NoError(t, err)
			require.Equal(t, test.want, who.Name)
		})
	}
}

func TestKubernetesResource(t *testing.T) {
	t.Parallel()
	k := authntest.NewKubernetes(t)
	k.AddToken("robots-token", "robot", true, time.Now().Add(time.Hour))
	k.AddToken("bobs-token", "bob", false, time.Now().Add(time.Hour))
	for resource, want := range map[string]string{
		"": "", "/serviceaccounts": "", "namespaces": "", "/api/v1/namespaces": "", "/apis/user.openshift.io/v1/users/~": "bob may, too",
		"/nodes": "answers 404",
	} {
		a := build(t, "kubeauth", nil, map[string]any{"url": k.URL + "/", "resource": resource})
		_, err := a.Authenticate(t.Context(), withBearer("robots-token")(t))
		if want == "answers 404" {
			require.ErrorContains(t, err, want, "a resource that is not there is the operator's mistake")
			continue
		}
		require.NoError(t, err, resource)
		_, err = a.Authenticate(t.Context(), withBearer("bobs-token")(t))
		require.Equal(t, want == "", err != nil, resource)
	}
}

func FuzzKubernetesAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"status":{"userInfo":{"username":"alice","groups":["system:authenticated"]}}}`, `{"status":{"userInfo":{}}}`, `{"status":"Failure"}`,
		`{"metadata":{"name":"alice"}}`, `{"metadata":null}`, `[]`, ``, `{"status":{"userInfo":{"username":7}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if name, err := readReview(body); (err == nil) == (name == "") {
			t.Fatalf("name %q with error %v", name, err)
		}
		if name, err := readUser(body); (err == nil) == (name == "") {
			t.Fatalf("name %q with error %v", name, err)
		}
	})
}
