package commctl

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"commissaire/api/client"
)

func (a *App) hostSSH() *cobra.Command {
	var port int
	var verbose int
	cmd := &cobra.Command{
		Use: "ssh HOST [SSH-OPTION...] [COMMAND...]", Short: "Log in to a host with its stored credentials", Args: cobra.MinimumNArgs(1),
		Long: `Log in to a host with the credentials that the server keeps for it, by the ssh of
this machine. Options of ssh may follow the host, then a command for the host. The
name or address is used as it is given. The private key is in a file of your own
while ssh runs, and removed after. So is the host key that the server has pinned, and
the host must show that one; 'commctl host trust' pins another. With a -o
UserKnownHostsFile of your own the pinned key is left out. A host that has a bastion
is reached through it, with the bastion's own credentials, port and host key, unless
-J or -o ProxyCommand says another way ('-o ProxyCommand=none': straight).

With a command, only the command's output is on standard output and the exit code
is that of ssh. Without one the exit code is 0.`,
		Example: "  commctl host ssh 192.0.2.10\n  commctl host ssh 192.0.2.10 -v -L 8080:localhost:80\n  commctl host ssh -p 2222 192.0.2.10 systemctl --failed",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkAddress(args[0]); err != nil {
				return err
			}
			options, command, err := splitSSH(args[1:])
			if err != nil {
				return err
			}
			if verbose > 0 {
				options = append([]string{"-" + strings.Repeat("v", verbose)}, options...)
			}
			if port != 0 {
				options = append([]string{"-p", strconv.Itoa(port)}, options...)
			}
			return a.ssh(cmd.Context(), args[0], options, command)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the host is for ssh
	cmd.Flags().IntVarP(&port, "port", "p", 0, "`PORT` of sshd (default: that of the host's record)")
	cmd.Flags().CountVarP(&verbose, "verbose", "v", "tell what ssh does; more often, more of it")
	return cmd
}

// sshEndTime is what ssh gets to end in when commctl is told to.
const sshEndTime = 5 * time.Second

// sshWithValue are the options of ssh(1) that take a value.
const sshWithValue = "BbcDEeFIiJLlmOoPpQRSWw"

// splitSSH splits what follows the host as ssh does: options, then the command.
func splitSSH(args []string) (options, command []string, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return options, args[i+1:], nil
		case len(arg) < 2 || arg[0] != '-':
			return options, args[i:], nil
		}
		options = append(options, arg)
		if at := strings.IndexAny(arg[1:], sshWithValue); at >= 0 && at == len(arg)-2 {
			if i++; i == len(args) {
				return nil, nil, fmt.Errorf("option %s of ssh needs a value", arg)
			}
			options = append(options, args[i])
		}
	}
	return options, nil, nil
}

// ssh runs ssh with the stored credentials of a host.
func (a *App) ssh(ctx context.Context, host string, options, command []string) error {
	// What old clients print is in nobody's way only when there is no command.
	note := a.Out
	if len(command) > 0 {
		note = a.Err
	}
	var record client.Host
	if err := a.need(ctx, note, route("host", host), &record); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "commctl-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "key")
	user, err := a.keyFile(ctx, note, host, file)
	if err != nil {
		return err
	}
	pinned, err := a.knownHosts(ctx, note, host, filepath.Join(dir, "known_hosts"), options)
	if err != nil {
		return err
	}
	through, err := a.through(ctx, note, record, dir, options)
	if err != nil {
		return err
	}
	args := []string{"-i", file, "-l", user}
	if record.Port != 0 && !sets(options, 'p') {
		args = append(args, "-p", strconv.Itoa(record.Port))
	}
	// Else sshd hangs up after the keys of an agent, before this one had its turn.
	args = append(append(args, options...), "-o", "IdentitiesOnly=yes")
	args = append(append(append(args, pinned...), through...), host)
	if len(command) > 0 {
		args = append(append(args, "--"), command...)
	}
	fmt.Fprintln(note, strings.Join(append([]string{"ssh"}, args...), " "))
	child := exec.CommandContext(ctx, "ssh", args...)
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = sshEndTime
	child.Stdin, child.Stdout, child.Stderr = a.In, a.Out, a.Err
	err = child.Run()
	if removed := os.RemoveAll(dir); removed != nil {
		return fmt.Errorf("the private key is still in %s: %w", file, removed)
	}
	fmt.Fprintln(note, "Removed temporary ssh key")
	var ended *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &ended):
		return err
	case len(command) == 0:
		fmt.Fprintln(note, "None")
		return nil
	case ended == nil:
		return nil
	case ended.ExitCode() < 0: // killed by a signal
		return &childError{255}
	}
	return &childError{ended.ExitCode()}
}

// keyFile writes the stored private key of a host into a file, and gives the user.
func (a *App) keyFile(ctx context.Context, notice io.Writer, host, file string) (user string, err error) {
	var creds client.HostCreds
	if err := a.need(ctx, notice, route("host", host, "creds"), &creds); err != nil {
		return "", err
	}
	key, err := base64.StdEncoding.DecodeString(creds.SshPrivKey)
	if err != nil {
		return "", errors.New("the stored private key is not base64")
	}
	if !bytes.HasSuffix(key, []byte("\n")) {
		key = append(key, '\n') // ssh refuses a key without
	}
	return creds.RemoteUser, os.WriteFile(file, key, 0o600)
}

// knownHosts gives options of ssh with which a host must show the key that the server
// has pinned, which it writes into a file; none when there is no such key. Of an option
// that is given twice ssh takes the first, so the user's go before these.
func (a *App) knownHosts(ctx context.Context, notice io.Writer, host, file string, options []string) ([]string, error) {
	if strings.Contains(strings.ToLower(strings.Join(options, " ")), "userknownhostsfile") {
		return nil, nil
	}
	status, answer, err := a.do(ctx, oldRequest{method: http.MethodGet, route: route("host", host, "hostkey"), notice: notice})
	if err != nil || status != http.StatusOK {
		return nil, err
	}
	var record client.HostKey
	if err := json.Unmarshal(answer, &record); err != nil {
		return nil, unreadable(err)
	}
	key, err := parseHostKey(record.Key)
	if err != nil {
		return nil, unreadable(err)
	}
	// For every name and port: there is one host here, whatever ssh_config(5) calls it.
	if err := os.WriteFile(file, append([]byte("* "), ssh.MarshalAuthorizedKey(key)...), 0o600); err != nil {
		return nil, err
	}
	return []string{"-o", `UserKnownHostsFile="` + file + `"`, "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"}, nil
}

// sets says whether the options of ssh have this one.
func sets(options []string, letter byte) bool {
	_, ok := valueOf(options, letter)
	return ok
}

// valueOf is the value of an option of ssh.
func valueOf(options []string, letter byte) (value string, ok bool) {
	for i := 0; i < len(options); i++ {
		arg := options[i][1:]
		at := strings.IndexAny(arg, sshWithValue)
		if at < 0 {
			continue
		}
		value := arg[at+1:]
		if value == "" {
			if i++; i < len(options) {
				value = options[i]
			}
		}
		if arg[at] == letter {
			return value, true
		}
	}
	return "", false
}

// need reads what a verb cannot do without; here old verbs end with code 2 also
// when it is not there. notice is told about dead endpoints.
func (a *App) need(ctx context.Context, notice io.Writer, route string, into any) error {
	status, answer, err := a.do(ctx, oldRequest{method: http.MethodGet, route: route, notice: notice})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return refusal(http.MethodGet, route, status, answer)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return unreadable(err)
	}
	return nil
}
