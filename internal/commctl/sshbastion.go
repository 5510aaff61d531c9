package commctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"commissaire/api/client"
)

// through gives options of ssh with which a host is reached through its bastion, if it has
// one, with what the server keeps for that: ProxyJump knows neither keys nor host keys of
// its own. Of ways that are given twice ssh takes the first, so the user's go before.
func (a *App) through(ctx context.Context, notice io.Writer, host client.Host, dir string, options []string) ([]string, error) {
	bastion, err := a.bastionOf(ctx, notice, host)
	if err != nil || bastion == "" {
		return nil, err
	}
	var record client.Host
	if err := a.need(ctx, notice, route("host", bastion), &record); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "bastion_key")
	user, err := a.keyFile(ctx, notice, bastion, file)
	if err != nil {
		return nil, err
	}
	pinned, err := a.knownHosts(ctx, notice, bastion, filepath.Join(dir, "bastion_known_hosts"), nil)
	if err != nil {
		return nil, err
	}
	args := []string{"ssh"}
	if config, ok := valueOf(options, 'F'); ok {
		args = append(args, "-F", config)
	}
	args = append(args, "-i", file, "-l", user, "-o", "IdentitiesOnly=yes")
	if record.Port != 0 {
		args = append(args, "-p", strconv.Itoa(record.Port))
	}
	args = append(args, pinned...)
	for i, arg := range args {
		// For the shell that ssh starts it with, after ssh has looked for tokens.
		args[i] = "'" + strings.NewReplacer("'", `'\''`, "%", "%%").Replace(arg) + "'"
	}
	command := strings.Join(args, " ") + " -W '[%h]:%p' " + bastion
	return []string{"-o", "ProxyCommand=" + command}, nil
}

// bastionOf is the bastion of a host: its own, or that of its cluster, "" for none.
func (a *App) bastionOf(ctx context.Context, notice io.Writer, host client.Host) (string, error) {
	if host.Bastion != "" || host.Cluster == "" {
		return host.Bastion, nil
	}
	var cluster client.Cluster
	if found, err := a.maybe(ctx, notice, route("cluster", host.Cluster), &cluster); err != nil || !found || cluster.Bastion == "" || cluster.Bastion == host.Address {
		return "", err
	}
	// What is a bastion of others is reached straight. The inventory knows.
	var inventory struct {
		Meta struct {
			Hostvars map[string]struct {
				Args string `json:"ansible_ssh_common_args"`
			} `json:"hostvars"`
		} `json:"_meta"`
	}
	if err := a.need(ctx, notice, "/api/v0/inventory?"+url.Values{"format": {"ansible"}}.Encode(), &inventory); err != nil {
		return "", err
	}
	if inventory.Meta.Hostvars[host.Address].Args == "" {
		return "", nil
	}
	return cluster.Bastion, nil
}

// maybe is need of what may be missing.
func (a *App) maybe(ctx context.Context, notice io.Writer, route string, into any) (found bool, err error) {
	status, answer, err := a.do(ctx, oldRequest{method: http.MethodGet, route: route, notice: notice})
	switch {
	case err != nil:
		return false, err
	case status == http.StatusNotFound:
		return false, nil
	case status != http.StatusOK:
		return false, refusal(http.MethodGet, route, status, answer)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return false, fmt.Errorf("%s: %w", route, unreadable(err))
	}
	return true, nil
}
