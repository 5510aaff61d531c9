package authn

import (
	"log/slog"
	"time"

	"commissaire/internal/fleet"
)

// Plugin describes one plug-in, for documentation and for those who show settings.
type Plugin struct {
	Name    string
	Aliases []string
	Usage   string
	Options []Option

	role  fleet.Role // of everybody for whom nothing is said
	build func(plan) Authenticator
}

// Option describes an option of a plug-in.
type Option struct {
	Name    string // with "_"; "-" is the same
	Default string
	Usage   string
	Secret  bool // its value must not be shown
}

// plan is what a plug-in is built of.
type plan struct {
	name    string
	options *options
	grants  grants
	tokens  Tokens
	logger  *slog.Logger
}

// outside makes a plug-in that asks a provider.
func (p plan) outside(asks provider) Authenticator {
	return newOutside(p.name, asks, p.grants, p.options.timeout("timeout"))
}

// Plugins lists all plug-ins.
func Plugins() []Plugin {
	return []Plugin{
		{
			Name:  "httpbasicauth",
			Usage: "HTTP Basic against bcrypt hashes. An entry is {\"hash\": \"$2b$12$…\", \"role\": \"viewer\"}; the role may be left out.",
			role:  fleet.RoleAdmin,
			Options: granting(fleet.RoleAdmin,
				Option{Name: "filepath", Usage: "JSON file of users, read again when it changes"},
				Option{Name: "users", Usage: "users in place; those of the file win", Secret: true},
			),
			build: func(p plan) Authenticator {
				o := BasicOptions{File: p.options.text("filepath"), Users: p.options.users("users"), Role: p.grants.role, Roles: p.grants.names}
				if p.options.values["filepath"] == nil && p.options.values["users"] == nil {
					p.options.fail("filepath", "or users is needed")
				}
				if p.options.err() != nil {
					return nil
				}
				return NewBasic(o, p.logger)
			},
		},
		{
			Name:    "httpauthclientcert",
			Usage:   "TLS client certificates, which `tls-clientverifyfile` makes everybody show.",
			role:    fleet.RoleAdmin,
			Options: granting(fleet.RoleAdmin, Option{Name: "cn", Usage: "common name that the certificate must have; any when left out"}),
			build: func(p plan) Authenticator {
				return &clientCert{cn: p.options.text("cn"), grants: p.grants, now: time.Now}
			},
		},
		{
			Name:  "keystonepasswordauth",
			Usage: "User and password of HTTP Basic, checked by OpenStack Identity (Keystone) v3.",
			role:  fleet.RoleAdmin,
			Options: dialling(fleet.RoleAdmin,
				Option{Name: "url", Usage: "of Keystone, with or without /v3 or /v3/auth/tokens"},
				Option{Name: "domain", Default: "Default", Usage: "name of the users' domain"},
			),
			build: func(p plan) Authenticator { return p.outside(keystonePasswords{p.keystone()}) },
		},
		{
			Name:  "keystonetokenauth",
			Usage: "A token of OpenStack Identity (Keystone) v3 in the header `X-Auth-Token`.",
			role:  fleet.RoleAdmin,
			Options: dialling(fleet.RoleAdmin,
				Option{Name: "url", Usage: "of Keystone, with or without /v3 or /v3/auth/tokens"},
				Option{Name: "domain", Default: "Default", Usage: "users of other domains are called NAME@DOMAIN"},
			),
			build: func(p plan) Authenticator { return p.outside(keystoneTokens{p.keystone()}) },
		},
		{
			Name:    "kubernetesbearertokenauth",
			Aliases: []string{"kubeauth"},
			Usage:   "A bearer token that is good on a Kubernetes API server, for callers who may get `resource` there.",
			role:    fleet.RoleViewer,
			Options: dialling(fleet.RoleViewer,
				Option{Name: "url", Usage: "of the API server"},
				Option{Name: "server_url", Usage: "the same"},
				Option{Name: "resource", Default: "/serviceaccounts", Usage: "of the core API, or a path that begins with /api or /apis"},
			),
			build: func(p plan) Authenticator {
				return p.outside(newKubernetes(p.options.client(), p.options.url("url", "server_url"), p.options.textOr("resource", "/serviceaccounts")))
			},
		},
		{
			Name:  "openshiftbearertokenauth",
			Usage: "A bearer token that is good on OpenShift, for callers who may get the endpoint.",
			role:  fleet.RoleViewer,
			Options: dialling(fleet.RoleViewer,
				Option{Name: "openshift_endpoint", Usage: "URL that the caller must be allowed to get; of the server alone, every user may"},
				Option{Name: "url", Usage: "the same"},
			),
			build: func(p plan) Authenticator {
				return p.outside(newOpenShift(p.options.client(), p.options.url("openshift_endpoint", "url")))
			},
		},
		{
			Name:  "oidc",
			Usage: "A JWT from an OpenID Connect issuer as a bearer token, signed with RSA, ECDSA or EdDSA.",
			role:  fleet.RoleViewer,
			Options: dialling(fleet.RoleViewer,
				Option{Name: "issuer", Usage: "URL of the issuer, letter by letter as its tokens name it"},
				Option{Name: "client_id", Usage: "audience that tokens must be made for"},
				Option{Name: "username_claim", Default: "sub", Usage: "claim that holds the name"},
				Option{Name: "roles_claim", Usage: "claim that holds roles or groups; dots lead into objects, as in realm_access.roles"},
				Option{Name: "role_map", Usage: "object from values of that claim to roles; without it the values are the roles. The highest counts"},
			),
			build: func(p plan) Authenticator {
				p.options.url("issuer") // kept as it is written
				c := claims{
					username: p.options.textOr("username_claim", "sub"),
					roles:    p.options.text("roles_claim"),
					roleMap:  p.options.roles("role_map"),
				}
				if c.roleMap != nil && c.roles == "" {
					p.options.fail("roles_claim", "is needed for role_map")
				}
				return p.outside(newOpenID(newIssuer(p.options.client(), p.options.text("issuer")), p.options.needed("client_id"), c))
			},
		},
		{
			Name:  "apitoken",
			Usage: "API tokens as a bearer token or as the password of HTTP Basic, and join tokens. It comes last when it is not listed.",
			build: func(p plan) Authenticator { return NewAPIToken(p.tokens) },
		},
	}
}

// granting gives the options of a plug-in with those about roles.
func granting(role fleet.Role, own ...Option) []Option {
	return append(own,
		Option{Name: "role", Default: string(role), Usage: "role of everybody for whom nothing else is said"},
		Option{Name: "roles", Usage: "object from names to roles; wins"},
	)
}

// dialling gives the options of a plug-in that asks others.
func dialling(role fleet.Role, own ...Option) []Option {
	return append(granting(role, own...),
		Option{Name: "ca_file", Usage: "PEM file of the authorities to trust instead of the system's"},
		Option{Name: "timeout", Default: defaultTimeout.String(), Usage: "for all that is asked about one request"},
	)
}

func (p plan) keystone() keystone {
	return newKeystone(p.options.client(), p.options.url("url"), p.options.textOr("domain", "Default"))
}
