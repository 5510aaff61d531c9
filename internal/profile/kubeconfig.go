package profile

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"commissaire/internal/secret"
)

// kubeconfig is a file by which a kubelet logs in to the Kubernetes API
// (kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig).
type kubeconfig struct {
	cluster, server string
	caFile          string // on the host; or
	ca              []byte // itself, PEM; neither for those that the host trusts
	insecure        bool   // whatever certificate the server has will do
	user            string
	token           secret.Text // or
	cert, key       string      // files on the host; neither to log in as nobody
}

// render holds the token, when there is one.
func (k kubeconfig) render() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Config\nclusters:\n- name: %s\n  cluster:\n    server: %s\n", quote(k.cluster), quote(k.server))
	switch {
	case k.caFile != "":
		fmt.Fprintf(&b, "    certificate-authority: %s\n", k.caFile)
	case len(k.ca) > 0:
		fmt.Fprintf(&b, "    certificate-authority-data: %s\n", base64.StdEncoding.EncodeToString(k.ca))
	case k.insecure:
		b.WriteString("    insecure-skip-tls-verify: true\n")
	}
	fmt.Fprintf(&b, "users:\n- name: %s\n", k.user)
	switch {
	case !k.token.Empty():
		fmt.Fprintf(&b, "  user:\n    token: %s\n", quote(string(k.token.Reveal())))
	case k.cert != "":
		fmt.Fprintf(&b, "  user:\n    client-certificate: %s\n    client-key: %s\n", k.cert, k.key)
	default:
		b.WriteString("  user: {}\n")
	}
	fmt.Fprintf(&b, "contexts:\n- name: default\n  context:\n    cluster: %s\n    user: %s\ncurrent-context: default\n", quote(k.cluster), k.user)
	return []byte(b.String())
}

// quote makes a scalar of YAML, which every string of JSON is.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // no string does this
	}
	return string(b)
}
