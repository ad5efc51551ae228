"""`spelld`: the server of one home.

__main__      starts the process
main          takes the lock of the home, and serves its socket
app           the HTTP application, and the checks that each request passes
assembly      makes all parts of a server and connects them
dependencies  gives the service and the person to routes
routes/       a module for each noun
follow        the stream of events and log of a run
exec          an additional command in the container of a run, over a WebSocket
"""
