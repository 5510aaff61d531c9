package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"commissaire/internal/authn"
	"commissaire/internal/config"
	"commissaire/internal/httptls"
)

// front is what stands between callers and the API.
type front struct {
	chain   *authn.Chain
	proxies []netip.Prefix
	tls     *tls.Config // nil for plain HTTP
}

func newFront(ctx context.Context, c *config.Config, tokens authn.Tokens, log *slog.Logger) (f front, err error) {
	if f.proxies, err = c.TrustedPrefixes(); err != nil {
		return front{}, fmt.Errorf("trusted-proxies: %w", err)
	}
	if f.tls, err = serverTLS(c, log); err != nil {
		return front{}, err
	}
	if f.chain, err = newChain(ctx, c, tokens, log); err != nil {
		return front{}, err
	}
	return f, nil
}

func newChain(ctx context.Context, c *config.Config, tokens authn.Tokens, log *slog.Logger) (*authn.Chain, error) {
	specs := pluginSpecs(c)
	if c.TLSClientVerifyFile == "" && slices.ContainsFunc(specs, func(s authn.Spec) bool { return strings.HasSuffix(s.Name, "httpauthclientcert") }) {
		log.WarnContext(ctx, "httpauthclientcert lets nobody in: no client is asked for a certificate; set tls-clientverifyfile")
	}
	chain, err := authn.Build(ctx, specs, tokens, log)
	if err != nil {
		return nil, fmt.Errorf("authentication-plugins: %w", err)
	}
	return chain, nil
}

// pluginSpecs gives the plug-ins of the settings in their order; that of
// users-file comes first.
func pluginSpecs(c *config.Config) []authn.Spec {
	var specs []authn.Spec
	if c.UsersFile != "" {
		specs = append(specs, authn.Spec{Name: "httpbasicauth", Options: map[string]any{"filepath": c.UsersFile}})
	}
	for _, p := range c.AuthenticationPlugins {
		specs = append(specs, authn.Spec{Name: p.Name, Options: p.Options})
	}
	return specs
}

// serverTLS gives the TLS settings, nil when the API is to speak plain HTTP.
func serverTLS(c *config.Config, log *slog.Logger) (*tls.Config, error) {
	files := httptls.Files{Cert: c.TLSCertFile, Key: c.TLSKeyFile, ClientVerify: c.TLSClientVerifyFile}
	if c.TLSPEMFile != "" {
		files.Cert, files.Key = c.TLSPEMFile, c.TLSPEMFile
	}
	if files.Cert != "" {
		return httptls.Config(files, log)
	}
	if !onlyThisMachine(c.ListenInterface) {
		log.Warn("the API speaks plain HTTP on an address that others may reach: passwords, tokens and SSH keys can be read on the way; set tls-pemfile, or put a TLS proxy before it",
			"listen-interface", c.ListenInterface)
	}
	return nil, nil
}

// onlyThisMachine says whether a server that listens there is out of reach for
// all other machines.
func onlyThisMachine(listenInterface string) bool {
	if listenInterface == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(listenInterface)
	return err == nil && ip.IsLoopback()
}
