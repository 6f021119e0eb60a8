// libfathom.so is made of the folder libraries; this file gives the target a source of its own.
