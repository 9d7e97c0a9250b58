# Run it with `river -n 4 hello_vr.py`: there are VMs then, and names that it does not import.
from socket import gethostname

from vr import VirtualResource


class Hello(VirtualResource):
    def vr_init(self):
        discovered = self.discover()
        allocated = self.allocate(discovered)
        deployed = self.deploy(allocated, module=self.__module__)
        self.vrlist = [vm["uuid"] for vm in deployed]
        return True

    def main(self):
        if self.parent is None:
            for vr in self.vrlist:
                msg = self.recv()
                print("%s says hello" % msg.myname)
        else:
            self.send(dest=self.parent, myname=gethostname())
