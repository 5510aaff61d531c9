// Package options reads the options of a container manager of type kubernetes or
// openshift. It speaks with nobody and opens no file, so whoever stores options can
// say what is wrong with them.
package options

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// The options. Either the address stands in server_url, with a token or a
// certificate, or all of it in kubeconfig. Paths are those of the machine that runs
// the worker.
const (
	ServerURL    = "server_url"
	Token        = "token"
	Cert         = "certificate_path"
	CertKey      = "certificate_key_path"
	CA           = "certificate_ca_path"
	Kubeconfig   = "kubeconfig" // the text itself, not a path
	Insecure     = "insecure_skip_tls_verify"
	ActiveWhen   = "active_when"
	ReadyTimeout = "ready_timeout"
	// MaxUnavailable bounds all rollouts of the container manager together.
	MaxUnavailable = "max_unavailable"

	// Of the kubelets that a bootstrap sets up.
	Kubelet      = "kubelet"
	KubeletToken = "kubelet_bootstrap_token"
	ClusterDNS   = "cluster_dns"
)

var names = []string{ServerURL, Token, Cert, CertKey, CA, Kubeconfig, Insecure, ActiveWhen, ReadyTimeout, MaxUnavailable, Kubelet, KubeletToken, ClusterDNS}

// Values of active_when.
const (
	Ready      = "ready"      // the default: a host is active when its node is Ready
	Registered = "registered" // or as soon as there is one
)

// Bounds of ready_timeout.
const (
	DefaultReadyTimeout = 2 * time.Minute
	MaxReadyTimeout     = time.Hour
)

// Options are those of a container manager, decoded.
type Options struct {
	ServerURL     string
	Token         secret.Text
	Cert, CertKey string
	CA            string
	Kubeconfig    secret.Text
	Insecure      bool
	ActiveWhen    string        // Ready or Registered
	ReadyTimeout  time.Duration // how long a node may take to become Ready
	// MaxUnavailable is how many of all nodes may be away at once; nil for any number.
	MaxUnavailable *fleet.Amount

	Kubelet      bool        // a bootstrap sets up a kubelet on hosts
	KubeletToken secret.Text // with which kubelets log in the first time
	ClusterDNS   string      // IP address of the DNS service for pods, "" for the host's own
}

// Field names an option as the API knows it.
func Field(option string) string { return "options." + option }

// Parse is strict: an option that nobody reads is one that somebody believes in. What
// stands in files and in the kubeconfig is not looked at.
func Parse(given map[string]any) (Options, error) {
	o := Options{ActiveWhen: Ready, ReadyTimeout: DefaultReadyTimeout}
	var bad []fleet.FieldError
	blame := func(option, format string, args ...any) {
		bad = append(bad, fleet.FieldError{Field: Field(option), Detail: fmt.Sprintf(format, args...)})
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		o.set(name, given[name], blame)
	}
	if len(bad) == 0 {
		o.checkTogether(blame)
	}
	if len(bad) > 0 {
		return Options{}, &fleet.Error{Kind: fleet.Invalid, Detail: "the options of the container manager are not right", Fields: bad}
	}
	return o, nil
}

func (o *Options) set(name string, value any, blame func(option, format string, args ...any)) {
	text, isText := value.(string)
	switch name {
	case ServerURL:
		o.ServerURL = text
	case Token:
		o.Token = secret.NewText([]byte(strings.TrimSpace(text)))
	case Cert:
		o.Cert = text
	case CertKey:
		o.CertKey = text
	case CA:
		o.CA = text
	case Kubeconfig:
		o.Kubeconfig = secret.NewText([]byte(text))
	case ActiveWhen:
		if o.ActiveWhen = text; text != Ready && text != Registered {
			blame(name, "must be %s or %s", Ready, Registered)
		}
		return
	case KubeletToken:
		o.KubeletToken = secret.NewText([]byte(strings.TrimSpace(text)))
	case ClusterDNS:
		o.ClusterDNS = text
	case Insecure, Kubelet:
		flag, isFlag := value.(bool)
		if !isFlag && (text == "true" || text == "false") { // as commctl -o gives them
			flag, isFlag = text == "true", true
		}
		if !isFlag {
			blame(name, "must be true or false")
		}
		if name == Kubelet {
			o.Kubelet = flag
		} else {
			o.Insecure = flag
		}
		return
	case ReadyTimeout:
		var d fleet.Duration
		err := decode(value, &d)
		if o.ReadyTimeout = time.Duration(d); err != nil || d <= 0 || o.ReadyTimeout > MaxReadyTimeout {
			blame(name, `must be a time such as "90s", or a number of seconds, of at most %s`, MaxReadyTimeout)
		}
		return
	case MaxUnavailable:
		var a fleet.Amount
		if err := decode(value, &a); err != nil || a.Value < 1 {
			blame(name, `must be a number of nodes, or a percentage such as "10%%", of at least 1`)
		}
		o.MaxUnavailable = &a
		return
	default:
		blame(name, "is no option of a container manager; there are %s", strings.Join(names, ", "))
		return
	}
	if !isText {
		blame(name, "must be a string")
	}
}

// decode reads a value as the type of to reads itself from JSON.
func decode(value, to any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

func (o Options) checkTogether(blame func(option, format string, args ...any)) {
	o.checkKubelet(blame)
	if !o.Kubeconfig.Empty() {
		for option, given := range map[string]bool{
			ServerURL: o.ServerURL != "", Token: !o.Token.Empty(), Cert: o.Cert != "", CertKey: o.CertKey != "", CA: o.CA != "",
		} {
			if given {
				blame(option, "stands in %s already; give one of them", Kubeconfig)
			}
		}
		return
	}
	switch {
	case o.ServerURL == "":
		blame(ServerURL, "is missing; give the address of the Kubernetes API, or a %s", Kubeconfig)
	case o.Cert != "" && o.CertKey == "":
		blame(CertKey, "is missing; it belongs to %s", Cert)
	case o.Cert == "" && o.CertKey != "":
		blame(Cert, "is missing; it belongs to %s", CertKey)
	case o.Insecure && o.CA != "":
		blame(Insecure, "cannot be true when %s is given", CA)
	default:
		u, err := Server(o.ServerURL)
		switch {
		case err != nil:
			blame(ServerURL, "%v", err)
		case u.Scheme == "http" && (!o.Token.Empty() || o.Cert != ""):
			blame(ServerURL, "must be https, or what logs in would be sent for all to read")
		}
	}
	if noToken(o.Token) {
		blame(Token, "has characters that a token cannot have")
	}
}

func (o Options) checkKubelet(blame func(option, format string, args ...any)) {
	if o.Kubelet && o.KubeletToken.Empty() {
		blame(KubeletToken, "is missing; a kubelet logs in with it the first time")
	}
	if o.Kubelet && o.CA == "" && o.Kubeconfig.Empty() {
		blame(CA, "is missing; a kubelet needs it to know the Kubernetes API, and whom to answer")
	}
	if noToken(o.KubeletToken) {
		blame(KubeletToken, "has characters that a token cannot have")
	}
	if ip, err := netip.ParseAddr(o.ClusterDNS); o.ClusterDNS != "" && (err != nil || ip.Zone() != "") {
		blame(ClusterDNS, "must be an IP address")
	}
}

// noToken says whether a token has what no HTTP header can carry (RFC 6750 §2.1).
func noToken(token secret.Text) bool {
	return strings.ContainsFunc(string(token.Reveal()), func(r rune) bool { return r <= ' ' || r > '~' })
}

// Server reads the address of a Kubernetes API.
func Server(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return nil, fmt.Errorf("must be an address such as https://10.2.0.1:6443")
	case u.User != nil:
		return nil, fmt.Errorf("must not have a user or a password in it")
	}
	return u, nil
}
