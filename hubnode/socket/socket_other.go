//go:build !linux && !darwin

package socket

import "net"

// Wrap returns conn as it is: this system has no calls that don't wait.
func Wrap(conn net.Conn) net.Conn { return conn }
