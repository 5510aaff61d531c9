package commctl

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

func (a *App) hostCommand() *cobra.Command {
	cmd := group("host", "Hosts",
		a.hostCreate(), a.hostDelete(), a.hostGet(), a.hostStatus(), a.hostJoin(), a.hostUnjoin(), a.hostList(), a.hostSSH(),
		a.hostLabels(), a.hostCreds(), a.hostTrust(), a.hostBootstrap(), a.hostSource(), a.hostBastion(),
	)
	cmd.PersistentFlags().BoolVar(&a.noResolve, "no-resolve", false, "use host names as they are, not their IPv4 addresses")
	return cmd
}

var hostView = view[client.Host]{
	name: func(h client.Host) string { return h.Address },
	columns: []column[client.Host]{
		{head: "ADDRESS", cell: func(h client.Host) string { return h.Address }},
		{head: "STATUS", cell: func(h client.Host) string { return string(h.Status) }},
		{head: "CLUSTER", cell: func(h client.Host) string { return h.Cluster }},
		{head: "OS", cell: func(h client.Host) string { return strings.TrimSpace(h.Os + " " + h.OsVersion) }},
		{head: "LAST-CHECK", cell: func(h client.Host) string { return h.LastCheck }},
		{head: "CPUS", wide: true, cell: func(h client.Host) string { return strconv.Itoa(h.Cpus) }},
		{head: "MEMORY-MIB", wide: true, cell: func(h client.Host) string { return strconv.Itoa(h.Memory) }},
		{head: "SPACE-GIB", wide: true, cell: func(h client.Host) string { return strconv.FormatInt(h.Space>>30, 10) }},
		{head: "WATCH", wide: true, cell: watchState},
		{head: "LABELS", wide: true, cell: func(h client.Host) string { return labelList(h.Labels) }},
		{head: "SOURCE", wide: true, cell: func(h client.Host) string { return h.Source }},
		{head: "BASTION", wide: true, cell: func(h client.Host) string { return h.Bastion }},
		{head: "REASON", long: true, cell: func(h client.Host) string { return h.Reason }},
	},
}

// watchState is what the last check of a host found, "" before the first one.
func watchState(h client.Host) string {
	if h.Watch == nil {
		return ""
	}
	return string(h.Watch.State)
}

// address gives the address under which the server knows a host.
func (a *App) address(ctx context.Context, host string) (string, error) {
	if err := checkAddress(host); err != nil {
		return "", err
	}
	if a.noResolve {
		return host, nil
	}
	return resolve(ctx, host)
}

// addressed makes a verb whose first argument is a host.
func (a *App) addressed(cmd *cobra.Command, run func(cmd *cobra.Command, address string, rest []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		address, err := a.address(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return run(cmd, address, args[1:])
	}
	return cmd
}

func (a *App) hostCreate() *cobra.Command {
	var cluster, user, hostKey, source, bastion string
	var port int
	cmd := &cobra.Command{
		Use: "create ADDRESS SSH-PRIV-KEY", Short: "Add a host and bootstrap it", Args: cobra.ExactArgs(2),
		Long: `Add a host and bootstrap it. SSH-PRIV-KEY is a file, or '-' for standard input,
with the private key that logs in to the host; it must have no passphrase.`,
		Example: "  commctl host create -c web 192.0.2.10 ~/.ssh/id_ed25519\n  commctl host create --remote-user cloud --port 2222 192.0.2.10 - <key",
	}
	cmd.Flags().StringVarP(&cluster, "cluster", "c", "", "`NAME` of the cluster to join")
	cmd.Flags().StringVar(&user, "remote-user", "", "`USER` who logs in (default root)")
	cmd.Flags().IntVar(&port, "port", 0, "`PORT` of sshd (default 22)")
	cmd.Flags().StringVar(&source, "source", "", "`NAME` of the source that knows facts of the host")
	cmd.Flags().StringVar(&bastion, "bastion", "", "`HOST` through which it is reached, by its address")
	cmd.Flags().StringVar(&hostKey, "host-key", "", "public host `KEY` that the host must present, as in authorized_keys")
	return a.addressed(cmd, func(cmd *cobra.Command, address string, rest []string) error {
		key, err := a.readFile(cmd.Context(), rest[0])
		if err != nil {
			return fmt.Errorf("SSH-PRIV-KEY: %w", err)
		}
		return a.old(cmd.Context(), http.MethodPut, route("host", address), struct {
			Key     string `json:"ssh_priv_key"`
			Cluster string `json:"cluster,omitempty"`
			User    string `json:"remote_user,omitempty"`
			Port    int    `json:"port,omitempty"`
			HostKey string `json:"host_key,omitempty"`
			Source  string `json:"source,omitempty"`
			Bastion string `json:"bastion,omitempty"`
		}{base64.StdEncoding.EncodeToString(key), cluster, user, port, hostKey, source, bastion})
	})
}

// readFile reads a file; "-" is standard input. A terminal or a pipe may have nothing
// to say for ever, so the end of the context ends it too.
func (a *App) readFile(ctx context.Context, path string) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	read := make(chan result, 1)
	go func() { // after a signal it stays in its read until the process ends, which is next
		var r result
		if path == "-" {
			r.text, r.err = io.ReadAll(a.In)
		} else {
			r.text, r.err = os.ReadFile(path)
		}
		read <- r
	}()
	select {
	case r := <-read:
		return r.text, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *App) hostDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete ADDRESS...", Short: "Forget hosts; nothing is changed on them", Args: cobra.MinimumNArgs(1),
		Example: "  commctl host delete 192.0.2.10 192.0.2.11",
		RunE: func(cmd *cobra.Command, args []string) error {
			addresses := make([]string, len(args))
			for i, host := range args {
				var err error
				if addresses[i], err = a.address(cmd.Context(), host); err != nil {
					return err
				}
			}
			return a.deleteEach(cmd.Context(), routes("host", addresses), a.remove)
		},
	}
}

func (a *App) hostGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ADDRESS", Short: "Show a host", Args: cobra.ExactArgs(1),
		Example: "  commctl host get 192.0.2.10\n  commctl host get -o json 192.0.2.10",
	}
	format := outputFlag(cmd, "")
	return a.addressed(cmd, func(cmd *cobra.Command, address string, _ []string) error {
		return oldGet(a, cmd, *format, hostView, route("host", address))
	})
}

func (a *App) hostStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status ADDRESS", Short: "Show how a host is, and what its container manager says", Args: cobra.ExactArgs(1),
		Example: "  commctl host status 192.0.2.10",
	}
	return a.addressed(cmd, func(cmd *cobra.Command, address string, _ []string) error {
		return a.old(cmd.Context(), http.MethodGet, route("host", address, "status"), nil)
	})
}

func (a *App) hostJoin() *cobra.Command {
	cmd := &cobra.Command{
		Use: "join ADDRESS CLUSTER", Short: "Let a host join a cluster", Args: nameArgs(cobra.ExactArgs(2), 1, 2),
		Example: "  commctl host join 192.0.2.10 web",
	}
	return a.addressed(cmd, func(cmd *cobra.Command, address string, rest []string) error {
		return a.old(cmd.Context(), http.MethodPut, route("cluster", rest[0], "hosts", address), nil)
	})
}

func (a *App) hostUnjoin() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unjoin ADDRESS CLUSTER", Short: "Let a host leave a cluster", Args: nameArgs(cobra.ExactArgs(2), 1, 2),
		Example: "  commctl host unjoin 192.0.2.10 web",
	}
	return a.addressed(cmd, func(cmd *cobra.Command, address string, rest []string) error {
		return a.old(cmd.Context(), http.MethodDelete, route("cluster", rest[0], "hosts", address), nil)
	})
}

func (a *App) hostList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list [CLUSTER]", Short: "List all hosts, or those of a cluster", Args: nameArgs(cobra.MaximumNArgs(1), 0, 1),
		Example: "  commctl host list -o table\n  commctl host list -o table web\n  commctl host list -l env=prod,tier!=db",
	}
	format := outputFlag(cmd, "")
	var selector string
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "only hosts with these labels: `SELECTOR` such as env=prod,tier!=db")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 1 && selector != "":
			return errors.New("name a cluster or a selector, not both")
		case len(args) == 1:
			return a.members(cmd, *format, args[0])
		case selector != "":
			return oldList(a, cmd, *format, hostView, route("hosts")+"?selector="+url.QueryEscape(selector))
		}
		return oldList(a, cmd, *format, hostView, route("hosts"))
	}
	return cmd
}

// members lists the hosts of a cluster: as a table with what is known of them, else
// by their addresses, as the API does.
func (a *App) members(cmd *cobra.Command, f format, cluster string) error {
	of := route("cluster", cluster, "hosts")
	if f != formatTable && f != formatWide {
		return oldList(a, cmd, f, nameView("ADDRESS"), of)
	}
	return oldRead(a, cmd, f, of, func(text []byte) error {
		var addresses []string
		if err := json.Unmarshal(text, &addresses); err != nil {
			return unreadable(err)
		}
		return oldRead(a, cmd, f, route("hosts"), func(text []byte) error {
			var hosts []client.Host
			if err := json.Unmarshal(text, &hosts); err != nil {
				return unreadable(err)
			}
			member := map[string]bool{}
			for _, address := range addresses {
				member[address] = true
			}
			hosts = slices.DeleteFunc(hosts, func(h client.Host) bool { return !member[h.Address] })
			return renderList(a, f, hostView, hosts)
		})
	})
}

func labelList(labels map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, name+"="+labels[name])
	}
	return strings.Join(all, ",")
}
