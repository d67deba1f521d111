// Package socket gives TCP connections two things that net.Conn can't do and
// that messages which come one by one need: to wait for data without holding a
// buffer, and to write in passing, without waiting and so without a goroutine.
// Connections that are encrypted can do both as well.
package socket
