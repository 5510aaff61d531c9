package nspawntest

import (
	"context"
	"fmt"
)

// Freeze stops the whole machine, kernel timers of its processes included, until
// [Machine.Thaw]. Connections stay open and nothing answers.
func (m *Machine) Freeze(ctx context.Context) error { return m.group.freeze(ctx) }

// Thaw lets a frozen machine go on where it was.
func (m *Machine) Thaw() error { return m.group.thaw() }

// PauseSSHD stops the listening sshd: the kernel still accepts connections, but
// no banner ever comes. Open sessions go on.
func (m *Machine) PauseSSHD(ctx context.Context) error { return m.signalSSHD(ctx, "STOP") }

// ResumeSSHD undoes PauseSSHD.
func (m *Machine) ResumeSSHD(ctx context.Context) error { return m.signalSSHD(ctx, "CONT") }

func (m *Machine) signalSSHD(ctx context.Context, signal string) error {
	_, err := m.Run(ctx, "/bin/sh", "-ec", `kill -s "$1" "$(systemctl show --property=MainPID --value ssh)"`, "sh", signal)
	return err
}

// Unplug pulls the network cable: packets vanish, open connections do not notice
// until something of theirs times out.
func (m *Machine) Unplug(ctx context.Context) error { return m.setLink(ctx, "down") }

// Plug undoes Unplug.
func (m *Machine) Plug(ctx context.Context) error { return m.setLink(ctx, "up") }

func (m *Machine) setLink(ctx context.Context, state string) error {
	return quiet(m.net.command(ctx, "ip", "link", "set", "vb-"+m.name, state))
}

// ResetConnections breaks every open TCP connection to the machine from this
// side, at once.
func (m *Machine) ResetConnections(ctx context.Context) error {
	if err := quiet(m.net.command(ctx, "ss", "--kill", "--tcp", "dst", m.address)); err != nil {
		return fmt.Errorf("break the connections to %s: %w", m.name, err)
	}
	return nil
}
