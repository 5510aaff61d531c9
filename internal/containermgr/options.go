package containermgr

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// The options of a container manager. Either the address stands in server_url,
// with a token or a certificate, or all of it in kubeconfig. Paths are those of the
// machine that runs the worker.
const (
	optServerURL  = "server_url"
	optToken      = "token"
	optCert       = "certificate_path"
	optCertKey    = "certificate_key_path"
	optCA         = "certificate_ca_path"
	optKubeconfig = "kubeconfig" // the text itself, not a path
	optInsecure   = "insecure_skip_tls_verify"
)

// options are those of a container manager, decoded.
type options struct {
	serverURL     string
	token         secret.Text
	cert, certKey string
	ca            string
	kubeconfig    secret.Text
	insecure      bool
}

// field names an option as the API knows it.
func field(option string) string { return "options." + option }

// parseOptions is strict: an option that nobody reads is one that somebody
// believes in.
func parseOptions(given map[string]any) (options, error) {
	var o options
	var bad []fleet.FieldError
	blame := func(option, format string, args ...any) {
		bad = append(bad, fleet.FieldError{Field: field(option), Detail: fmt.Sprintf(format, args...)})
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		text, isText := given[name].(string)
		flag, isFlag := given[name].(bool)
		if name == optInsecure {
			if o.insecure = flag; !isFlag {
				blame(name, "must be true or false")
			}
			continue
		}
		switch name {
		case optServerURL:
			o.serverURL = text
		case optToken:
			o.token = secret.NewText([]byte(strings.TrimSpace(text)))
		case optCert:
			o.cert = text
		case optCertKey:
			o.certKey = text
		case optCA:
			o.ca = text
		case optKubeconfig:
			o.kubeconfig = secret.NewText([]byte(text))
		default:
			blame(name, "is no option of a container manager; there are %s", strings.Join(optionNames, ", "))
			continue
		}
		if !isText {
			blame(name, "must be a string")
		}
	}
	if len(bad) == 0 {
		o.checkTogether(blame)
	}
	if len(bad) > 0 {
		return options{}, &fleet.Error{Kind: fleet.Invalid, Detail: "the options of the container manager are not right", Fields: bad}
	}
	return o, nil
}

// blamed are the options to name when the server does not take what stands in
// them.
type blamed struct{ address, login, authority string }

func (o options) blamed() blamed {
	b := blamed{address: optServerURL, login: optToken, authority: optCA}
	switch {
	case !o.kubeconfig.Empty():
		b = blamed{address: optKubeconfig, login: optKubeconfig, authority: optKubeconfig}
	case o.token.Empty() && o.cert != "":
		b.login = optCert
	}
	return b
}

var optionNames = []string{optServerURL, optToken, optCert, optCertKey, optCA, optKubeconfig, optInsecure}

func (o options) checkTogether(blame func(option, format string, args ...any)) {
	if !o.kubeconfig.Empty() {
		for option, given := range map[string]bool{
			optServerURL: o.serverURL != "", optToken: !o.token.Empty(), optCert: o.cert != "", optCertKey: o.certKey != "", optCA: o.ca != "",
		} {
			if given {
				blame(option, "stands in %s already; give one of them", optKubeconfig)
			}
		}
		return
	}
	switch {
	case o.serverURL == "":
		blame(optServerURL, "is missing; give the address of the Kubernetes API, or a %s", optKubeconfig)
	case o.cert != "" && o.certKey == "":
		blame(optCertKey, "is missing; it belongs to %s", optCert)
	case o.cert == "" && o.certKey != "":
		blame(optCert, "is missing; it belongs to %s", optCertKey)
	case o.insecure && o.ca != "":
		blame(optInsecure, "cannot be true when %s is given", optCA)
	}
	if strings.ContainsFunc(string(o.token.Reveal()), func(r rune) bool { return r <= ' ' || r > '~' }) {
		blame(optToken, "has characters that a token cannot have")
	}
}

// config makes the configuration of a client of them.
func (o options) config() (*rest.Config, error) {
	if !o.kubeconfig.Empty() {
		return o.fromKubeconfig()
	}
	u, err := parseServer(o.serverURL)
	if err != nil {
		return nil, fleet.InvalidField(field(optServerURL), "%v", err)
	}
	// The path is dropped, as it always was: people give the address with /api/v1.
	c := &rest.Config{Host: u.Scheme + "://" + u.Host, BearerToken: string(o.token.Reveal())}
	c.TLSClientConfig.Insecure = o.insecure
	for _, f := range []struct {
		option, path string
		into         *[]byte
	}{{optCert, o.cert, &c.CertData}, {optCertKey, o.certKey, &c.KeyData}, {optCA, o.ca, &c.CAData}} {
		if f.path == "" {
			continue
		}
		if *f.into, err = os.ReadFile(f.path); err != nil {
			return nil, fleet.InvalidField(field(f.option), "cannot be read on the machine of the worker: %v", err)
		}
	}
	if u.Scheme == "http" && (c.BearerToken != "" || c.CertData != nil) {
		return nil, fleet.InvalidField(field(optServerURL), "must be https, or what logs in would be sent for all to read")
	}
	return c, nil
}

// fromKubeconfig takes the current context. What would run a program of the
// kubeconfig's choice on the worker, read its files or go by its proxy is refused.
func (o options) fromKubeconfig() (*rest.Config, error) {
	wrong := func(format string, args ...any) error {
		return fleet.InvalidField(field(optKubeconfig), format, args...)
	}
	k, err := clientcmd.Load(o.kubeconfig.Reveal())
	if err != nil {
		// The parser's words may quote the text, which is a secret.
		return nil, wrong("is not a kubeconfig; give what `kubectl config view --raw --flatten --minify` prints")
	}
	current := k.Contexts[k.CurrentContext]
	if current == nil {
		return nil, wrong("has no context that is current")
	}
	cluster, user := k.Clusters[current.Cluster], k.AuthInfos[current.AuthInfo]
	if cluster == nil || user == nil {
		return nil, wrong("lacks the cluster or the user of its current context")
	}
	switch {
	case user.Exec != nil || user.AuthProvider != nil:
		return nil, wrong("runs a program to log in, which is not done here; give a token of a service account")
	case user.Username != "" || user.Password != "":
		return nil, wrong("logs in by user and password, which Kubernetes no longer takes; give a token or a certificate")
	case user.Impersonate != "" || user.ImpersonateUID != "" || len(user.ImpersonateGroups) > 0:
		return nil, wrong("acts as somebody else, which is not done here; give that account's own token")
	case cluster.ProxyURL != "":
		return nil, wrong("goes by a proxy, which is not done here")
	case cluster.CertificateAuthority != "" || user.ClientCertificate != "" || user.ClientKey != "" || user.TokenFile != "":
		return nil, wrong("names files, which are not read; give what `kubectl config view --raw --flatten --minify` prints")
	case cluster.InsecureSkipTLSVerify && !o.insecure:
		return nil, wrong("does not verify certificates; add the authority's certificate to it, or set %s to true", optInsecure)
	}
	u, err := parseServer(cluster.Server)
	if err != nil {
		return nil, wrong("has a server that %v", err)
	}
	c := &rest.Config{
		// With its path: here it is somebody's proxy for several clusters.
		Host: u.Scheme + "://" + u.Host + u.Path, BearerToken: user.Token,
		TLSClientConfig: rest.TLSClientConfig{
			ServerName: cluster.TLSServerName, Insecure: o.insecure,
			CertData: user.ClientCertificateData, KeyData: user.ClientKeyData,
		},
	}
	if !o.insecure {
		c.CAData = cluster.CertificateAuthorityData
	}
	if u.Scheme == "http" && (c.BearerToken != "" || c.CertData != nil) {
		return nil, wrong("has a server that must be https, or what logs in would be sent for all to read")
	}
	return c, nil
}

func parseServer(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return nil, fmt.Errorf("must be an address such as https://10.2.0.1:6443")
	case u.User != nil:
		return nil, fmt.Errorf("must not have a user or a password in it")
	}
	return u, nil
}
