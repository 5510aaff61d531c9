package api

import (
	"context"
	"encoding/json"
	"errors"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

func (h *handlers) ListHosts(ctx context.Context, r gen.ListHostsRequestObject) (gen.ListHostsResponseObject, error) {
	selector, err := fleet.ParseSelector(or(r.Params.Selector, ""))
	if err != nil {
		return nil, fleet.InvalidField("selector", "%s", err)
	}
	hosts, err := h.Store.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	all := make(gen.ListHosts200JSONResponse, 0, len(hosts))
	for i := range hosts {
		if selector.Matches(hosts[i].Labels) {
			all = append(all, host(hosts[i]))
		}
	}
	return all, nil
}

func (h *handlers) GetHost(ctx context.Context, r gen.GetHostRequestObject) (gen.GetHostResponseObject, error) {
	one, err := h.Store.Host(ctx, r.Address)
	if err != nil {
		return nil, err
	}
	return gen.GetHost200JSONResponse(host(one)), nil
}

func (h *handlers) PutHost(ctx context.Context, r gen.PutHostRequestObject) (gen.PutHostResponseObject, error) {
	stored, err := h.putHost(ctx, r.Address, *r.Body)
	if err != nil {
		return nil, err
	}
	return gen.PutHost201JSONResponse(stored), nil
}

// RegisterHost takes the address from the body, or that of the caller:
// cloud-init on a new machine knows no better.
func (h *handlers) RegisterHost(ctx context.Context, r gen.RegisterHostRequestObject) (gen.RegisterHostResponseObject, error) {
	address, field := r.Body.Address, "address"
	switch {
	case address != "":
	case r.Body.Host != "":
		address, field = r.Body.Host, "host"
	case r.Body.Name != "":
		address, field = r.Body.Name, "name"
	default:
		address = callOf(ctx).address
	}
	address, err := fleet.ParseAddress(address)
	if err != nil {
		return nil, blame(err, field)
	}
	callOf(ctx).subject = address
	add := h.putHost
	if callOf(ctx).principal.Role == fleet.RoleJoin {
		add = h.joinHost
	}
	stored, err := add(ctx, address, *r.Body)
	if err != nil {
		return nil, err
	}
	return gen.RegisterHost201JSONResponse(stored), nil
}

func (h *handlers) putHost(ctx context.Context, address string, body gen.HostPut) (gen.Host, error) {
	if err := sameAddress(address, map[string]string{"address": body.Address, "host": body.Host, "name": body.Name}); err != nil {
		return gen.Host{}, err
	}
	if err := fleet.CheckLabels(body.Labels); err != nil {
		return gen.Host{}, err
	}
	if err := h.knownSource(body.Source); err != nil {
		return gen.Host{}, err
	}
	bastion, err := parseBastion(body.Bastion)
	if err != nil {
		return gen.Host{}, err
	}
	creds, err := h.credsOfPut(ctx, address, body)
	if err != nil {
		return gen.Host{}, err
	}
	if err := h.dispatcherReady(ctx); err != nil {
		return gen.Host{}, err
	}
	c := callOf(ctx)
	stored, op, err := h.Store.PutHost(ctx, store.HostPut{
		Address: address, Port: body.Port, Cluster: body.Cluster, HostKey: body.HostKey, Labels: body.Labels, Source: body.Source, Bastion: bastion, Creds: creds,
		RequestedBy: c.principal.Name, RequestID: c.id,
	})
	if err != nil {
		return gen.Host{}, err
	}
	if op != nil {
		h.dispatch(ctx, *op)
	}
	return host(stored), nil
}

// joinHost adds the host that shows a join token. The key to log in with is that
// of the token, so the host sends none, but says how to know it again.
func (h *handlers) joinHost(ctx context.Context, address string, body gen.HostPut) (gen.Host, error) {
	if err := sameAddress(address, map[string]string{"address": body.Address, "host": body.Host, "name": body.Name}); err != nil {
		return gen.Host{}, err
	}
	switch {
	case body.SshPrivKey != "":
		return gen.Host{}, fleet.InvalidField("ssh_priv_key", "is nothing for a join token, which has a key of its own; leave it out")
	case len(body.Labels) > 0:
		return gen.Host{}, fleet.InvalidField("labels", "are not for the host itself to choose; leave them out")
	case body.Source != "":
		return gen.Host{}, fleet.InvalidField("source", "is not for the host itself to choose; leave it out")
	case body.Bastion != "":
		return gen.Host{}, fleet.InvalidField("bastion", "is not for the host itself to choose; leave it out")
	case body.HostKey == "":
		return gen.Host{}, fleet.InvalidField("host_key", "is missing; send the public host key, as in /etc/ssh/ssh_host_ed25519_key.pub")
	}
	if err := h.dispatcherReady(ctx); err != nil {
		return gen.Host{}, err
	}
	c := callOf(ctx)
	stored, op, err := h.Store.JoinHost(ctx, store.HostJoin{
		TokenID: c.principal.TokenID, Address: address, Port: body.Port, HostKey: body.HostKey,
		Cluster: body.Cluster, RemoteUser: body.RemoteUser, RequestedBy: c.principal.Name, RequestID: c.id,
	})
	if err != nil {
		return gen.Host{}, err
	}
	if op != nil {
		h.dispatch(ctx, *op)
	}
	return host(stored), nil
}

// credsOfPut reads the credentials of a host PUT. A host cannot be added
// without a key; for a host that is there, no key counts as another key, as in
// v0. The store never sees a host without one.
func (h *handlers) credsOfPut(ctx context.Context, address string, body gen.HostPut) (secret.HostCreds, error) {
	if body.SshPrivKey != "" {
		return parseCreds(body.SshPrivKey, body.RemoteUser)
	}
	_, err := h.Store.Host(ctx, address)
	switch {
	case fleet.KindOf(err) == fleet.NotFound:
		return secret.HostCreds{}, fleet.InvalidField("ssh_priv_key", "is missing; send the private key that logs in to the host, in base64")
	case err != nil:
		return secret.HostCreds{}, err
	}
	return secret.HostCreds{}, fleet.Errorf(fleet.Conflict,
		"host %s is there with a private key and the request has none; send the same key, or use /creds to change it", address)
}

func (h *handlers) DeleteHost(ctx context.Context, r gen.DeleteHostRequestObject) (gen.DeleteHostResponseObject, error) {
	cancelled, ordered, err := h.Store.DeleteHost(ctx, r.Address, requester(ctx))
	if err != nil {
		return nil, err
	}
	h.cancelled(ctx, cancelled)
	h.ordered(ctx, ordered)
	return gen.DeleteHost200JSONResponse(list[string](nil)), nil
}

func (h *handlers) GetHostStatus(ctx context.Context, r gen.GetHostStatusRequestObject) (gen.GetHostStatusResponseObject, error) {
	one, err := h.Store.Host(ctx, r.Address)
	if err != nil {
		return nil, err
	}
	status := gen.GetHostStatus200JSONResponse{Type: "host_only", ContainerManager: map[string]any{}}
	status.Host.LastCheck = fleet.FormatTime(one.LastCheck)
	status.Host.Status = gen.HostState(one.State)
	node, err := h.node(ctx, r.Address)
	if node != nil {
		status.ContainerManager = node
	}
	return status, err
}

// node is what the container manager of a host's cluster says of it, nil for nothing.
func (h *handlers) node(ctx context.Context, address string) (said map[string]any, err error) {
	n, err := h.Store.HostNode(ctx, address)
	switch {
	case err != nil || !n.Held():
		return nil, err
	case !n.Type.HasNodes(): // this server is the container manager
		return map[string]any{"node": address, "status": "ok"}, nil
	case !n.Fresh:
		err := h.Dispatcher.Ready(ctx)
		if err == nil {
			err = h.Dispatcher.ReadNode(ctx, fleet.DefaultTenant, address)
		}
		if err != nil {
			h.Logger.WarnContext(ctx, "nobody says how a node is", "host", address, "container_manager", n.Manager, "error", err)
			return nil, nil
		}
		if n, err = h.Store.HostNode(ctx, address); err != nil {
			return nil, err
		}
	}
	if n.Status == nil || !n.Held() {
		return nil, nil
	}
	return said, json.Unmarshal(n.Status, &said)
}

// sameAddress refuses a body that names another host than the URL.
func sameAddress(want string, given map[string]string) error {
	for _, field := range []string{"address", "host", "name"} {
		if given[field] == "" {
			continue
		}
		address, err := fleet.ParseAddress(given[field])
		if err != nil {
			return blame(err, field)
		}
		if err := sameName(field, address, want); err != nil {
			return err
		}
	}
	return nil
}

// blame gives an Invalid error the name that the member has in this request.
func blame(err error, field string) error {
	var e *fleet.Error
	if !errors.As(err, &e) || len(e.Fields) != 1 {
		return err
	}
	return fleet.InvalidField(field, "%s", e.Fields[0].Detail)
}
