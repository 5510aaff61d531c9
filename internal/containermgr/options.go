package containermgr

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// blamed are the options to name when the server does not take what stands in
// them.
type blamed struct{ address, login, authority string }

func blamedFor(o options.Options) blamed {
	b := blamed{address: options.ServerURL, login: options.Token, authority: options.CA}
	switch {
	case !o.Kubeconfig.Empty():
		b = blamed{address: options.Kubeconfig, login: options.Kubeconfig, authority: options.Kubeconfig}
	case o.Token.Empty() && o.Cert != "":
		b.login = options.Cert
	}
	return b
}

// config makes the configuration of a client of them.
func config(o options.Options) (*rest.Config, error) {
	if !o.Kubeconfig.Empty() {
		return fromKubeconfig(o)
	}
	u, err := options.Server(o.ServerURL)
	if err != nil {
		return nil, fleet.InvalidField(options.Field(options.ServerURL), "%v", err)
	}
	// The path is dropped, as it always was: people give the address with /api/v1.
	c := &rest.Config{Host: u.Scheme + "://" + u.Host, BearerToken: string(o.Token.Reveal())}
	c.TLSClientConfig.Insecure = o.Insecure
	for _, f := range []struct {
		option, path string
		into         *[]byte
	}{{options.Cert, o.Cert, &c.CertData}, {options.CertKey, o.CertKey, &c.KeyData}, {options.CA, o.CA, &c.CAData}} {
		if f.path == "" {
			continue
		}
		if *f.into, err = ReadFile(f.path); err != nil {
			return nil, fleet.InvalidField(options.Field(f.option), "cannot be read on the machine of the worker: %v", err)
		}
	}
	if u.Scheme == "http" && (c.BearerToken != "" || c.CertData != nil) {
		return nil, fleet.InvalidField(options.Field(options.ServerURL), "must be https, or what logs in would be sent for all to read")
	}
	return c, nil
}

// maxFile bounds a file with certificates or a key, in bytes: all the authorities that
// a system trusts are a quarter of that.
const maxFile = 1 << 20

// ReadFile reads certificates or a key from a file that somebody has named from afar:
// not what waits for a writer or has no end.
func ReadFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("it is larger than %d MB", maxFile>>20)
	}
	return data, err
}

// API is where a Kubernetes API is, how to know it, and the certificate that logs in
// there, if one does.
type API struct {
	URL  string
	CA   []byte // PEM, nil for those that this machine trusts
	Cert []byte // PEM, nil without one
	Key  secret.Text
}

// APIOf reads what the options say of the Kubernetes API, from files of this machine,
// too. It asks nobody.
func APIOf(o options.Options) (API, error) {
	c, err := config(o)
	if err != nil {
		return API{}, err
	}
	return API{URL: c.Host, CA: c.CAData, Cert: c.CertData, Key: secret.NewText(c.KeyData)}, nil
}

// fromKubeconfig takes the current context. What would run a program of the
// kubeconfig's choice on the worker, read its files or go by its proxy is refused.
func fromKubeconfig(o options.Options) (*rest.Config, error) {
	wrong := func(format string, args ...any) error {
		return fleet.InvalidField(options.Field(options.Kubeconfig), format, args...)
	}
	k, err := clientcmd.Load(o.Kubeconfig.Reveal())
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
	case cluster.InsecureSkipTLSVerify && !o.Insecure:
		return nil, wrong("does not verify certificates; add the authority's certificate to it, or set %s to true", options.Insecure)
	}
	u, err := options.Server(cluster.Server)
	if err != nil {
		return nil, wrong("has a server that %v", err)
	}
	c := &rest.Config{
		// With its path: here it is somebody's proxy for several clusters.
		Host: u.Scheme + "://" + u.Host + u.Path, BearerToken: user.Token,
		TLSClientConfig: rest.TLSClientConfig{
			ServerName: cluster.TLSServerName, Insecure: o.Insecure,
			CertData: user.ClientCertificateData, KeyData: user.ClientKeyData,
		},
	}
	if !o.Insecure {
		c.CAData = cluster.CertificateAuthorityData
	}
	if u.Scheme == "http" && (c.BearerToken != "" || c.CertData != nil) {
		return nil, wrong("has a server that must be https, or what logs in would be sent for all to read")
	}
	return c, nil
}
